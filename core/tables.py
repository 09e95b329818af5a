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


def id_column() -> Column[int]:
    """Return a column `id` that the database numbers."""
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


recipes = Table(
    "recipes",
    metadata,
    id_column(),
    Column("name", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False, server_default="active"),
    Column("without_model", Text, nullable=False, server_default="refuse"),
    Column("bit_depth", Text, nullable=False, server_default="auto"),
    Column("second_review", Boolean, nullable=False, server_default=text("false")),
    Column("role", Text, nullable=False, server_default="inspection"),
    Column("retention", JSONB),  # `core.models.retention_policies.RetentionPolicy`; null keeps everything
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
    id_column(),
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
    id_column(),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id"), nullable=False),
    Column("activated_at", Timestamp, nullable=False, server_default=NOW),
    Column("rolled_back_at", Timestamp),
    Index(None, "recipe_id", "id"),
)

thresholds = Table(
    "thresholds",
    metadata,
    id_column(),
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
    Column("removed_at", Timestamp),  # when retention removed the file; the row stays while an inspection has it
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
    Column("trace_context", Text),  # of its upload, see `core.tracing.traces`; null if it is not traced
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

# How many inspections lost their worker, by the time when it was noticed.
rescues = Table(
    "rescues",
    metadata,
    id_column(),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("inspections", Integer, nullable=False),
    Index(None, "at"),
)
