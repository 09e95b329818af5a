"""Where traces continue: the trace context of queued inspections and of deliveries"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("work", sa.Column("trace_context", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("trace_context", sa.Text(), nullable=True))
