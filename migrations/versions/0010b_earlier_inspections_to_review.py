"""Indexes for listings, and earlier inspections that await a review"""

from alembic import op

from migrations.online import create_index, create_plain_index

revision = "0010b"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated. Reviews wait while earlier inspections are read.

    Otherwise, an inspection that is reviewed in the meantime would await a review for ever.
    """
    create_index("ix_inspections_ng_recipe_id_id", "inspections", "(recipe_id, id) WHERE verdict = 'ng'")
    create_index(
        "ix_inspections_model_version_id_id", "inspections", "(model_version_id, id) WHERE model_version_id IS NOT NULL"
    )
    create_plain_index("ix_reviews_reviewer_inspection_id", "reviews", "(reviewer, inspection_id)")
    op.execute("LOCK TABLE reviews IN SHARE ROW EXCLUSIVE MODE")
    op.execute("""
        INSERT INTO awaiting_review (inspection_id, recipe_id, line_id, station_id)
        SELECT id, recipe_id, line_id, station_id FROM inspections
        WHERE verdict = 'review' AND NOT EXISTS (SELECT FROM reviews WHERE inspection_id = inspections.id)
        ON CONFLICT DO NOTHING
    """)
