"""Indexes of inspections to review, and of inspections that are not completed"""

from migrations.online import create_index

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. Earlier revisions created these indexes in databases that have them."""
    create_index("ix_inspections_review_id", "inspections", "(id) WHERE verdict = 'review'")
    create_index("ix_inspections_not_completed", "inspections", "(status, id) WHERE status <> 'completed'")
