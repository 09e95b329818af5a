"""The recipe of each review, to find the reviewed inspections of a recipe"""

from alembic import op

from migrations.online import create_plain_index

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated.

    Earlier reviews get their recipe after the lock of the new column is released. A review of an inspection that
    retention has removed has no recipe.
    """
    op.execute("ALTER TABLE reviews ADD COLUMN IF NOT EXISTS recipe_id bigint")
    # A trigger, so that reviews that the previous version of the api inserts until it is replaced get it, too.
    op.execute("""
        CREATE OR REPLACE FUNCTION set_recipe_of_review() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.recipe_id := (SELECT recipe_id FROM inspections WHERE id = NEW.inspection_id);
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE OR REPLACE TRIGGER set_recipe_of_review BEFORE INSERT ON reviews
        FOR EACH ROW EXECUTE FUNCTION set_recipe_of_review()
    """)
    create_plain_index("ix_reviews_recipe_id_inspection_id", "reviews", "(recipe_id, inspection_id)")
    op.execute("""
        UPDATE reviews SET recipe_id = inspections.recipe_id FROM inspections
        WHERE inspections.id = reviews.inspection_id AND reviews.recipe_id IS NULL
    """)
