"""The tables of webhooks: endpoints, deliveries, and the attempts to deliver them."""

from sqlalchemy import ARRAY, Column, Float, ForeignKey, Index, Integer, Table, Text, Uuid, text

from core.tables import NEW_ID, NOW, Timestamp, id_column, metadata, one_of

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=False),
    Column("recipes", ARRAY(Text)),
    Column("description", Text, nullable=False, server_default=""),
    Column("state", Text, nullable=False, server_default="enabled"),
    Column("disabled_because", Text),
    Column("secret", Text, nullable=False),
    Column("previous_secret", Text),
    Column("previous_secret_until", Timestamp),
    Column("max_group_size", Integer, nullable=False, server_default="1"),
    Column("max_group_delay_ms", Integer, nullable=False, server_default="0"),
    Column("failing_since", Timestamp),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW),
    one_of("state", "enabled", "disabled", "deleted"),
)

# One event for one endpoint. Deliveries sent in one request share a `message_id`, which is set before the first try.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("endpoint_id", Uuid, ForeignKey("webhook_endpoints.id"), nullable=False),
    Column("event", Text, nullable=False),
    Column("subject_id", Text, nullable=False),
    Column("callback_url", Text),
    Column("occurred_at", Timestamp, nullable=False, server_default=NOW),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("message_id", Uuid),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", Timestamp, nullable=False, server_default=NOW),
    Column("scheduled_at", Timestamp, nullable=False, server_default=NOW),  # when `next_try_at` was set
    Column("claim", Integer, nullable=False, server_default="0"),
    Column("finished_at", Timestamp),
    Column("trace_context", Text),  # of what caused the event, see `core.tracing.traces`; null if it is not traced
    one_of("state", "pending", "delivered", "exhausted", "cancelled"),
    Index("ix_deliveries_due", "endpoint_id", "next_try_at", postgresql_where=text("state = 'pending'")),
    Index("ix_deliveries_scheduled", "scheduled_at", postgresql_where=text("state = 'pending'")),
    Index(None, "endpoint_id", "id"),
    Index("ix_deliveries_exhausted", "endpoint_id", "id", postgresql_where=text("state = 'exhausted'")),
    Index("ix_deliveries_message_id", "message_id", postgresql_where=text("message_id IS NOT NULL")),
    postgresql_with={"fillfactor": 80},
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    id_column(),
    Column("message_id", Uuid, nullable=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("outcome", Text, nullable=False),
    Column("status", Integer),
    Column("duration_ms", Float(53), nullable=False),
    Column("answer", Text, nullable=False),
    Index(None, "message_id", "id"),
)
