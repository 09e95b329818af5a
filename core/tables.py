"""The tables. Work in flight (`work`) is small and hot; what is finished (`inspections`) is insert-only.

A finish moves a row from `work` to `inspections`, so both carry the same `SUBMITTED` columns. No other table has a
foreign key into `inspections`, which is partitioned by range of its UUIDv7 id, that is, by time.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
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


def _one_of(column: str, *values: str) -> CheckConstraint:
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
    Column(
        "active_version_id",
        BigInteger,
        ForeignKey("model_versions.id", use_alter=True, name="fk_recipes_active_version_id"),
    ),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW),
    _one_of("state", "active", "archived"),
    _one_of("without_model", "refuse", "wait"),
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
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("decided_at", Timestamp),
    UniqueConstraint("recipe_id", "version"),
    UniqueConstraint("recipe_id", "sha256"),
    _one_of("state", "uploaded", "ready", "rejected", "retired"),
)

# The stack of what was active: a rollback takes the newest entry off and goes back to the one below it.
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
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("closed_at", Timestamp),
    Column("finished_at", Timestamp),
    _one_of("state", "open", "running", "completed", "cancelled"),
)


def _submitted() -> list[Column[Any]]:
    """What is known of an inspection before it is finished: the columns that `work` and `inspections` share."""
    return [
        Column("id", Uuid, primary_key=True),
        Column("recipe_id", BigInteger, nullable=False),
        Column("priority", Text, nullable=False),
        Column("batch_id", Uuid),
        Column("external_id", Text),
        Column("part_id", Text),
        Column("lot_id", Text),
        Column("line_id", Text),
        Column("station_id", Text),
        Column("metadata", JSONB, nullable=False),
        Column("captured_at", Timestamp),
        Column("deadline_at", Timestamp),
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
    _one_of("state", "queued", "running"),
    _one_of("priority", "sync", "live", "bulk"),
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
    _one_of("status", "completed", "failed", "cancelled"),
    _one_of("verdict", "ok", "ng", "review"),
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
    Column("revoked_at", Timestamp),
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
)
