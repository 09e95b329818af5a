"""Owners of consumers, number of checks of a model version"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("feed_consumers", sa.Column("owner", sa.Text(), nullable=True))
    op.add_column("model_versions", sa.Column("checks", sa.Integer(), server_default="0", nullable=False))
