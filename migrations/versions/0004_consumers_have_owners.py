"""Consumers of the feed belong to the API key that made them; failed and cancelled inspections have an index"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("feed_consumers", sa.Column("owner", sa.Text(), nullable=True))
    op.create_index(
        "ix_inspections_not_completed",
        "inspections",
        ["status", "id"],
        unique=False,
        postgresql_where=sa.text("status <> 'completed'"),
    )
