"""The review queue, second reviews, retracted reviews, and the roles of recipes"""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_plain_index

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated: the indexes are built outside its transaction.

    Transactions of reviews lock `reviews` before `recipes`, and those of workers lock `inspections` before both. No
    lock is taken here in another order.
    """
    op.execute("ALTER TABLE reviews ADD COLUMN IF NOT EXISTS second_review boolean NOT NULL DEFAULT false")
    _create_tables()
    op.execute("ALTER TABLE recipes ADD COLUMN IF NOT EXISTS second_review boolean NOT NULL DEFAULT false")
    op.execute("ALTER TABLE recipes ADD COLUMN IF NOT EXISTS role text NOT NULL DEFAULT 'inspection'")
    op.execute("ALTER TABLE recipes DROP CONSTRAINT IF EXISTS ck_recipes_role")
    op.create_check_constraint(op.f("ck_recipes_role"), "recipes", "role IN ('inspection', 'reference')")
    _create_triggers_of_reviews()
    create_plain_index("ix_reviews_recipe_id_id", "reviews", "(recipe_id, id)")
    create_plain_index("ix_reviews_reviewer_id", "reviews", "(reviewer, id)")
    _create_trigger_of_inspections()
    # Earlier inspections whose effective verdict is `review`. The triggers are committed, so none is left out. Earlier
    # failures do not enter the queue: nobody has waited for a review of them.
    op.execute("""
        INSERT INTO review_queue (inspection_id, recipe_id)
        SELECT id, recipe_id FROM inspections
        WHERE verdict = 'review' AND NOT EXISTS (SELECT FROM reviews WHERE inspection_id = inspections.id)
        ON CONFLICT DO NOTHING
    """)


def _create_tables() -> None:
    op.create_table(
        "review_retractions",
        sa.Column("review_id", sa.Uuid(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name=op.f("fk_review_retractions_review_id")),
        sa.PrimaryKeyConstraint("review_id", name=op.f("pk_review_retractions")),
        if_not_exists=True,
    )
    op.create_table(
        "review_queue",
        sa.Column("inspection_id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("inspection_id", name=op.f("pk_review_queue")),
        if_not_exists=True,
    )
    index = op.f("ix_review_queue_recipe_id_inspection_id")
    op.create_index(index, "review_queue", ["recipe_id", "inspection_id"], if_not_exists=True)


# Triggers, so that workers and apis of the previous version, which run until they are replaced, maintain the queue too.


def _create_triggers_of_reviews() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION set_recipe_of_review() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            SELECT inspections.recipe_id, recipes.second_review INTO NEW.recipe_id, NEW.second_review
            FROM inspections LEFT JOIN recipes ON recipes.id = inspections.recipe_id
            WHERE inspections.id = NEW.inspection_id;
            NEW.second_review := coalesce(NEW.second_review, false);
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE OR REPLACE FUNCTION leave_review_queue() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM review_queue WHERE inspection_id = NEW.inspection_id;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE OR REPLACE TRIGGER leave_review_queue AFTER INSERT ON reviews
        FOR EACH ROW WHEN (NOT NEW.second_review) EXECUTE FUNCTION leave_review_queue()
    """)


def _create_trigger_of_inspections() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION enter_review_queue() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO review_queue (inspection_id, recipe_id) VALUES (NEW.id, NEW.recipe_id) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$
    """)
    with op.get_context().autocommit_block():  # releases the lock of `inspections` at once
        op.execute("""
            CREATE OR REPLACE TRIGGER enter_review_queue AFTER INSERT ON inspections
            FOR EACH ROW WHEN (NEW.verdict = 'review' OR NEW.status = 'failed') EXECUTE FUNCTION enter_review_queue()
        """)
