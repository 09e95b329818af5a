"""Leases of checks of model versions, API keys of inspections in flight, times at which deliveries were scheduled"""

from alembic import op

from migrations.online import create_plain_index

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated: the index is built outside its transaction."""
    op.execute("ALTER TABLE model_versions ADD COLUMN IF NOT EXISTS check_until timestamptz")
    op.execute("ALTER TABLE work ADD COLUMN IF NOT EXISTS api_key text")
    op.execute("ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS scheduled_at timestamptz DEFAULT now() NOT NULL")
    create_plain_index("ix_deliveries_scheduled", "deliveries", "(scheduled_at) WHERE state = 'pending'")
