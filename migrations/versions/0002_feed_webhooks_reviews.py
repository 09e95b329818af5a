"""Feed, webhooks, reviews, idempotency keys, views of a part"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "delivery_attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Float(precision=53), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_attempts")),
    )
    op.create_index(op.f("ix_delivery_attempts_message_id_id"), "delivery_attempts", ["message_id", "id"], unique=False)
    op.create_table(
        "feed",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("inspection_id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("numbered_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("settled", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("event IN ('final', 'reviewed')", name=op.f("ck_feed_event")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_feed")),
    )
    op.create_index(op.f("ix_feed_recipe_id_number"), "feed", ["recipe_id", "number"], unique=False)
    op.create_table(
        "feed_consumers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cursor", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_feed_consumers")),
    )
    op.create_table(
        "feed_state",
        sa.Column("singleton", sa.Integer(), server_default="1", autoincrement=False, nullable=False),
        sa.Column("expired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("expired_numbered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("singleton = 1", name=op.f("ck_feed_state_one_row")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_feed_state")),
    )
    op.create_table(
        "feed_epochs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("began_after", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed_epochs")),
        sa.UniqueConstraint("epoch", name=op.f("uq_feed_epochs_epoch")),
    )
    op.create_table(
        "feed_unnumbered",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "transaction", sa.BigInteger(), server_default=sa.text("pg_current_xact_id()::text::bigint"), nullable=False
        ),
        sa.Column("inspection_id", sa.Uuid(), nullable=False),
        sa.Column("recipe_id", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.CheckConstraint("event IN ('final', 'reviewed')", name=op.f("ck_feed_unnumbered_event")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed_unnumbered")),
        postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
    )
    op.create_index(op.f("ix_feed_unnumbered_transaction_id"), "feed_unnumbered", ["transaction", "id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("subjects", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "reviews",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("inspection_id", sa.Uuid(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("verdict IN ('ok', 'ng')", name=op.f("ck_reviews_verdict")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
    )
    op.create_index(op.f("ix_reviews_inspection_id_id"), "reviews", ["inspection_id", "id"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("recipes", sa.ARRAY(sa.Text()), nullable=True),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.Text(), server_default="enabled", nullable=False),
        sa.Column("disabled_because", sa.Text(), nullable=True),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("previous_secret", sa.Text(), nullable=True),
        sa.Column("previous_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_group_size", sa.Integer(), server_default="1", nullable=False),
        sa.Column("max_group_delay_ms", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('enabled', 'disabled', 'deleted')", name=op.f("ck_webhook_endpoints_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("uuidv7()"), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("claim", sa.Integer(), server_default="0", nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'exhausted', 'cancelled')", name=op.f("ck_deliveries_state")
        ),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_deliveries_endpoint_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint_id", "next_try_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(op.f("ix_deliveries_endpoint_id_id"), "deliveries", ["endpoint_id", "id"], unique=False)
    op.create_index(
        "ix_deliveries_exhausted",
        "deliveries",
        ["endpoint_id", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'exhausted'"),
    )
    op.create_index(
        "ix_deliveries_message_id",
        "deliveries",
        ["message_id"],
        unique=False,
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("callback_endpoint_id", sa.Uuid(), nullable=True))
    op.add_column("batches", sa.Column("callback_url", sa.Text(), nullable=True))
    op.add_column("inspections", sa.Column("view", sa.Text(), nullable=True))
    op.add_column("inspections", sa.Column("callback_endpoint_id", sa.Uuid(), nullable=True))
    op.add_column("inspections", sa.Column("callback_url", sa.Text(), nullable=True))
    op.add_column("work", sa.Column("view", sa.Text(), nullable=True))
    op.add_column("work", sa.Column("callback_endpoint_id", sa.Uuid(), nullable=True))
    op.add_column("work", sa.Column("callback_url", sa.Text(), nullable=True))
    op.execute("INSERT INTO feed_state DEFAULT VALUES")
    # A trigger, so that workers of the previous version, which run until they are replaced, add entries too.
    op.execute("""
        CREATE FUNCTION enter_into_feed() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO feed_unnumbered (inspection_id, recipe_id, event)
            SELECT id, recipe_id, 'final' FROM entered ORDER BY id;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER enter_into_feed AFTER INSERT ON inspections REFERENCING NEW TABLE AS entered
        FOR EACH STATEMENT EXECUTE FUNCTION enter_into_feed()
    """)
