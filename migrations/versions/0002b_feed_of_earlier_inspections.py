"""Entries in the feed for the inspections of the last 30 days"""

from alembic import op

revision = "0002b"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. It reads for a while, so it holds no lock; a trigger enters what finishes meanwhile."""
    op.execute("""
        INSERT INTO feed_unnumbered (inspection_id, recipe_id, event)
        SELECT id, recipe_id, 'final' FROM inspections
        WHERE finished_at > now() - interval '30 days'
          AND NOT EXISTS (SELECT FROM feed WHERE inspection_id = inspections.id)
          AND NOT EXISTS (SELECT FROM feed_unnumbered WHERE inspection_id = inspections.id)
        ORDER BY finished_at, id
    """)
