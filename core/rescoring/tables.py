"""The tables of re-scoring. Few slices exist at a time, and they are updated often; results are written once."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from core.tables import NEW_ID, NOW, Timestamp, metadata, one_of


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


rescore_runs = Table(
    "rescore_runs",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id"), nullable=False),
    # What was requested. `limits` are the thresholds of the run, fixed when it was created.
    Column("kind", Text, nullable=False),
    Column("source", JSONB, nullable=False),
    Column("recompute", Boolean, nullable=False, server_default=text("false")),
    Column("threshold", Float(53)),
    Column("review_threshold", Float(53)),
    Column("limits", JSONB, nullable=False),
    Column("window", Text),
    Column("time_zone", Text),
    Column("max_failure_rate", Float(53), nullable=False),
    Column("schedule_id", Uuid),
    Column("actor", Text, nullable=False),
    # Its state and progress.
    Column("state", Text, nullable=False, server_default="queued"),
    Column("reason", Text),
    Column("cursor", JSONB, nullable=False, server_default="{}"),
    Column("total", BigInteger),
    _count("planned"),
    Column("planned_all_at", Timestamp),
    *(_count(name) for name in ("completed", "failed", "ok", "ng", "review", "ok_to_ng", "ng_to_ok")),
    _count("skipped"),
    Column("rate", Float(53), nullable=False, server_default="0"),
    Column("rated_at", Timestamp),
    # The planner's lease. `plan_attempt` is a fencing token, like `attempt` of an inspection.
    Column("plan_attempt", Integer, nullable=False, server_default="0"),
    Column("plan_lease_until", Timestamp),
    Column("plan_published_at", Timestamp),
    Column("activation", JSONB),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp),
    one_of("kind", "archive", "challenger"),
    one_of("state", "queued", "running", "paused", "completed", "failed", "cancelled"),
    Index(None, "recipe_id", "id"),
    Index("ix_rescore_runs_active", "id", postgresql_where=text("state IN ('queued', 'running', 'paused')")),
    Index(
        "ix_rescore_runs_challenger",
        "recipe_id",
        unique=True,
        postgresql_where=text("kind = 'challenger' AND state IN ('queued', 'running', 'paused')"),
    ),
    postgresql_with={"fillfactor": 50},
)

# A part of a run's source that one worker scores. `first` is the number of its first image, `done` says how many of
# `items` have results. The row is deleted once the slice is done.
rescore_slices = Table(
    "rescore_slices",
    metadata,
    Column("run_id", Uuid, ForeignKey("rescore_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("items", JSONB, nullable=False),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("rescues", Integer, nullable=False, server_default="0"),
    Column("lease_until", Timestamp),
    Column("worker", Text),
    one_of("state", "queued", "running"),
    postgresql_with={
        "fillfactor": 50,
        "autovacuum_vacuum_scale_factor": 0.0,
        "autovacuum_vacuum_threshold": 500,
    },
)

# The result of one image of a run, numbered from 1 in the order of the source. The `before_` columns hold what was
# recorded for the inspection when the run scored it; they are null if it was never inspected or has no verdict.
rescore_results = Table(
    "rescore_results",
    metadata,
    Column("run_id", Uuid, ForeignKey("rescore_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("inspection_id", Uuid),
    Column("path", Text),
    Column("external_id", Text),
    Column("part_id", Text),
    Column("lot_id", Text),
    Column("line_id", Text),
    Column("station_id", Text),
    Column("captured_at", Timestamp),
    Column("metadata", JSONB),
    Column("image_day", Date),
    Column("image_sha256", LargeBinary),
    Column("before_model_version_id", BigInteger),
    Column("before_score", Float(53)),
    Column("before_threshold", Float(53)),
    Column("before_verdict", Text),
    Column("anomaly_score", Float(53)),
    Column("threshold", Float(53)),
    Column("review_threshold", Float(53)),
    Column("verdict", Text),
    Column("reasons", ARRAY(Text), nullable=False, server_default="{}"),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("scored_at", Timestamp, nullable=False, server_default=NOW),
    one_of("verdict", "ok", "ng", "review"),
    one_of("before_verdict", "ok", "ng", "review"),
    CheckConstraint(
        "(error_code IS NULL) = (anomaly_score IS NOT NULL AND verdict IS NOT NULL)", name="result_or_error"
    ),
    Index(
        "ix_rescore_results_flips",
        "run_id",
        "before_verdict",
        "verdict",
        "number",
        postgresql_where=text("before_verdict <> verdict"),
    ),
    Index(
        "ix_rescore_results_inspection_id",
        "inspection_id",
        "run_id",
        postgresql_where=text("inspection_id IS NOT NULL"),
    ),
)

rescore_schedules = Table(
    "rescore_schedules",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("name", Text, nullable=False, unique=True),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("cron", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="enabled"),
    Column("next_at", Timestamp, nullable=False),
    Column("last_run_id", Uuid),
    Column("last_outcome", Text),
    Column("last_at", Timestamp),
    Column("actor", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("updated_at", Timestamp, nullable=False, server_default=NOW),
    one_of("state", "enabled", "disabled"),
)

# One row: the credit of bulk work on the live queue, and the counts up to which it has been computed.
bulk_share = Table(
    "bulk_share",
    metadata,
    Column("singleton", Integer, primary_key=True, server_default="1", autoincrement=False),
    _count("scored"),
    _count("scored_seen"),
    _count("feed_seen"),
    Column("credit", Float(53), nullable=False, server_default="0"),
    CheckConstraint("singleton = 1", name="one_row"),
)
