"""The tables of the database.

`work` holds the inspections in flight: few rows that change often. `inspections` holds the final ones and is
insert-only. Finishing an inspection moves its row from `work` to `inspections`, so both have the `SUBMITTED` columns.
`inspections` is partitioned by ranges of its UUIDv7 id, that is, by time, and no table has a foreign key to it.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Timestamp = DateTime(timezone=True)
NOW = text("now()")
NEW_ID = text("uuidv7()")


def one_of(column: str, *values: str) -> CheckConstraint:
    """Return a check constraint for a column with a fixed set of values."""
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


recipes = Table(
    "recipes",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False, server_default="active"),
    Column("without_model", Text, nullable=False, server_default="refuse"),
    Column("bit_depth", Text, nullable=False, server_default="auto"),
    Column("second_review", Boolean, nullable=False, server_default=text("false")),
    Column("role", Text, nullable=False, server_default="inspection"),
    Column(
        "active_version_id",
        BigInteger,
        ForeignKey("model_versions.id", use_alter=True, name="fk_recipes_active_version_id"),
    ),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW),
    one_of("state", "active", "archived"),
    one_of("without_model", "refuse", "wait"),
    one_of("bit_depth", "auto", "8", "10", "12", "14", "16"),
    one_of("role", "inspection", "reference"),
)

model_versions = Table(
    "model_versions",
    metadata,
    _id(),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default="uploaded"),
    Column("sha256", LargeBinary, nullable=False),
    Column("manifest", JSONB, nullable=False),
    Column("rejection", Text),
    Column("checks", Integer, nullable=False, server_default="0"),
    Column("check_until", Timestamp),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("decided_at", Timestamp),
    UniqueConstraint("recipe_id", "version"),
    UniqueConstraint("recipe_id", "sha256"),
    one_of("state", "uploaded", "ready", "rejected", "retired"),
)

# A stack: a rollback marks the newest activation as rolled back and returns to the one before it.
activations = Table(
    "activations",
    metadata,
    _id(),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id"), nullable=False),
    Column("activated_at", Timestamp, nullable=False, server_default=NOW),
    Column("rolled_back_at", Timestamp),
    Index(None, "recipe_id", "id"),
)

thresholds = Table(
    "thresholds",
    metadata,
    _id(),
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id"), nullable=False),
    Column("station_id", Text),
    Column("threshold", Float(53), nullable=False),
    Column("review_threshold", Float(53)),
    Column("calibration", JSONB),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("actor", Text),  # null for one from before this column
    Column("reason", Text),
    Column("held_out_scores", ARRAY(Float(53))),  # of the good parts of its calibration, ascending
    Index(None, "model_version_id", "station_id", "id"),
    CheckConstraint("review_threshold <= threshold", name="review_below_threshold"),
)

images = Table(
    "images",
    metadata,
    Column("day", Date, primary_key=True),
    Column("sha256", LargeBinary, primary_key=True),
    Column("media_type", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("state", Text, nullable=False),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("cancelled", Integer, nullable=False, server_default="0"),
    Column("ok", Integer, nullable=False, server_default="0"),
    Column("ng", Integer, nullable=False, server_default="0"),
    Column("review", Integer, nullable=False, server_default="0"),
    Column("callback_endpoint_id", Uuid),
    Column("callback_url", Text),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("closed_at", Timestamp),
    Column("finished_at", Timestamp),
    one_of("state", "open", "running", "completed", "cancelled"),
)


def _submitted() -> list[Column[Any]]:
    """Return the columns that `work` and `inspections` share: the data of an inspection before it is finished."""
    return [
        Column("id", Uuid, primary_key=True),
        Column("recipe_id", BigInteger, nullable=False),
        Column("priority", Text, nullable=False),
        Column("batch_id", Uuid),
        Column("external_id", Text),
        Column("part_id", Text),
        Column("view", Text),
        Column("lot_id", Text),
        Column("line_id", Text),
        Column("station_id", Text),
        Column("metadata", JSONB, nullable=False),
        Column("captured_at", Timestamp),
        Column("deadline_at", Timestamp),
        Column("callback_endpoint_id", Uuid),
        Column("callback_url", Text),
        Column("image_day", Date, nullable=False),
        Column("image_sha256", LargeBinary, nullable=False),
        Column("created_at", Timestamp, nullable=False, server_default=NOW),
        Column("attempt", Integer, nullable=False, server_default="0"),
        Column("started_at", Timestamp),
        Column("model_version_id", BigInteger),
        Column("threshold_id", BigInteger),
        Column("threshold", Float(53)),
        Column("review_threshold", Float(53)),
    ]


SUBMITTED = tuple(column.name for column in _submitted())

work = Table(
    "work",
    metadata,
    *_submitted(),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("published_at", Timestamp),
    Column("lease_until", Timestamp),
    Column("worker", Text),
    Column("rescues", Integer, nullable=False, server_default="0"),
    Column("released_because", Text),
    Column("api_key", Text),  # its prefix; null without authentication
    one_of("state", "queued", "running"),
    one_of("priority", "sync", "live", "bulk"),
    Index("ix_work_queued", "priority", "recipe_id", "id", postgresql_where=text("state = 'queued'")),
    Index("ix_work_running", "lease_until", postgresql_where=text("state = 'running'")),
    Index("ix_work_deadline", "deadline_at", postgresql_where=text("deadline_at IS NOT NULL")),
    Index("ix_work_batch_id", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
    postgresql_with={
        "fillfactor": 50,
        "autovacuum_vacuum_scale_factor": 0.0,
        "autovacuum_vacuum_threshold": 2000,
    },
)

inspections = Table(
    "inspections",
    metadata,
    *_submitted(),
    Column("status", Text, nullable=False),
    Column("anomaly_score", Float(53)),
    Column("verdict", Text),
    Column("reasons", ARRAY(Text), nullable=False),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("finished_at", Timestamp, nullable=False, server_default=NOW),
    Column("timings_ms", JSONB, nullable=False),
    Column("brightness", REAL),  # this and the next two: `core.vision.input.input_checks.ImageMeasurements`
    Column("contrast", REAL),
    Column("sharpness", REAL),
    one_of("status", "completed", "failed", "cancelled"),
    one_of("verdict", "ok", "ng", "review"),
    CheckConstraint(
        "(status = 'completed') = (anomaly_score IS NOT NULL AND verdict IS NOT NULL)",
        name="completed_has_result",
    ),
    CheckConstraint("(status = 'failed') = (error_code IS NOT NULL)", name="failed_has_error"),
    Index(None, "recipe_id", "id"),
    Index("ix_inspections_batch_id_id", "batch_id", "id", postgresql_where=text("batch_id IS NOT NULL")),
    Index("ix_inspections_part_id_id", "part_id", "id", postgresql_where=text("part_id IS NOT NULL")),
    Index("ix_inspections_lot_id_id", "lot_id", "id", postgresql_where=text("lot_id IS NOT NULL")),
    Index("ix_inspections_line_id_id", "line_id", "id", postgresql_where=text("line_id IS NOT NULL")),
    Index("ix_inspections_station_id_id", "station_id", "id", postgresql_where=text("station_id IS NOT NULL")),
    Index("ix_inspections_review_id", "id", postgresql_where=text("verdict = 'review'")),
    Index(
        "ix_inspections_not_ok_recipe_id_verdict_id",
        "recipe_id",
        "verdict",
        "id",
        postgresql_where=text("verdict <> 'ok'"),
    ),
    Index(
        "ix_inspections_model_version_id_id",
        "model_version_id",
        "id",
        postgresql_where=text("model_version_id IS NOT NULL"),
    ),
    Index("ix_inspections_not_completed", "status", "id", postgresql_where=text("status <> 'completed'")),
    postgresql_partition_by="RANGE (id)",
)

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("requests_per_minute", Integer),
)

# Sign-ins of browsers with an API key. `expires_at` moves on while a session is used.
sessions = Table(
    "sessions",
    metadata,
    _id(),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    Column("key_id", BigInteger, ForeignKey("api_keys.id"), nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("last_used_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp, nullable=False),
    Index(None, "key_id"),
    Index(None, "expires_at"),
)

# The first use of each Idempotency-Key. A repeated request with the same key gets the same subjects.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("subjects", ARRAY(Uuid), nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Index(None, "created_at"),
)

# A trigger sets `recipe_id` and `second_review`, whichever version of the code inserts a review. `recipe_id` is null if
# the inspection was removed. `second_review` says whether the recipe asked for a second review at that time.
reviews = Table(
    "reviews",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("inspection_id", Uuid, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("recipe_id", BigInteger),
    Column("second_review", Boolean, nullable=False, server_default=text("false")),
    Index(None, "inspection_id", "id"),
    Index(None, "recipe_id", "inspection_id"),
    Index(None, "recipe_id", "id"),
    Index(None, "reviewer", "id"),
    Index(None, "reviewer", "inspection_id"),
    one_of("verdict", "ok", "ng"),
)

# A review that was retracted does not count. It is kept, and so is the retraction.
review_retractions = Table(
    "review_retractions",
    metadata,
    Column("review_id", Uuid, ForeignKey("reviews.id"), primary_key=True),
    Column("actor", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
)

# The inspections that wait for a person. A trigger on `inspections` adds those with the verdict `review` and those that
# failed; a review removes them, or adds one that needs a further review.
review_queue = Table(
    "review_queue",
    metadata,
    Column("inspection_id", Uuid, primary_key=True),
    Column("recipe_id", BigInteger, nullable=False),
    Index(None, "recipe_id", "inspection_id"),
)

# New feed entries without a number. Once committed, they get their numbers and move to `feed`, in transactions that run
# one at a time, so a reader that reads a number can read every smaller one (see `core.feed.feed`). A trigger on
# `inspections` adds the entries of final inspections, whichever version of the code inserts them.
feed_unnumbered = Table(
    "feed_unnumbered",
    metadata,
    _id(),
    Column("transaction", BigInteger, nullable=False, server_default=text("pg_current_xact_id()::text::bigint")),
    Column("inspection_id", Uuid, nullable=False),
    Column("recipe_id", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Index(None, "transaction", "id"),
    one_of("event", "final", "reviewed"),
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.0, "autovacuum_vacuum_threshold": 5000},
)

feed = Table(
    "feed",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("inspection_id", Uuid, nullable=False),
    Column("recipe_id", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("numbered_at", Timestamp, nullable=False, server_default=NOW),
    Column("settled", BigInteger, nullable=False),
    Index(None, "recipe_id", "number"),
    one_of("event", "final", "reviewed"),
)

# One row: the newest feed entry that retention has removed.
feed_state = Table(
    "feed_state",
    metadata,
    Column("singleton", Integer, primary_key=True, server_default="1", autoincrement=False),
    Column("expired", BigInteger, nullable=False, server_default="0"),
    Column("expired_numbered_at", Timestamp),
    CheckConstraint("singleton = 1", name="one_row"),
)

# `origin` identifies the database that assigned the numbers of an epoch. A restored database has another origin.
feed_epochs = Table(
    "feed_epochs",
    metadata,
    _id(),
    Column("epoch", BigInteger, nullable=False, unique=True),
    Column("origin", Text, nullable=False),
    Column("began_after", BigInteger, nullable=False),
    Column("began_at", Timestamp, nullable=False, server_default=NOW),
)

feed_consumers = Table(
    "feed_consumers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("owner", Text),  # an actor; null for a consumer from before this column, which its next reader will own
    Column("cursor", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("acknowledged_at", Timestamp, nullable=False, server_default=NOW),
)

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
    _id(),
    Column("message_id", Uuid, nullable=False),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("outcome", Text, nullable=False),
    Column("status", Integer),
    Column("duration_ms", Float(53), nullable=False),
    Column("answer", Text, nullable=False),
    Index(None, "message_id", "id"),
)

audit_events = Table(
    "audit_events",
    metadata,
    _id(),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Index(None, "subject", "id"),
    Index(None, "at", "id"),
    Index(None, "actor", "at", "id"),
    Index(None, "action", "at", "id"),
    Index(None, "actor", "action", "at", "id"),
    Index(None, "subject", "at", "id"),
)

# How many inspections lost their worker, by the time when it was noticed.
rescues = Table(
    "rescues",
    metadata,
    _id(),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("inspections", Integer, nullable=False),
    Index(None, "at"),
)
