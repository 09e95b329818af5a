"""Sessions of browsers, indexes to list audit events"""

import sqlalchemy as sa
from alembic import op

from migrations.online import create_plain_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

LISTED_BY = (("at",), ("actor", "at"), ("action", "at"), ("actor", "action", "at"), ("subject", "at"))


def upgrade() -> None:
    """Apply this migration. If it is interrupted, it can be repeated: the indexes are built outside its transaction."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_sessions_key_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_sessions_token_sha256")),
        if_not_exists=True,
    )
    for column in ("key_id", "expires_at"):
        op.create_index(op.f(f"ix_sessions_{column}"), "sessions", [column], unique=False, if_not_exists=True)
    for columns in LISTED_BY:
        create_plain_index(f"ix_audit_events_{'_'.join(columns)}_id", "audit_events", f"({', '.join(columns)}, id)")
