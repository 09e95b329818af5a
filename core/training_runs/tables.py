"""The tables of training runs. There are few runs; a running one is updated about once a second."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
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

training_runs = Table(
    "training_runs",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    # What was requested.
    Column("options", JSONB, nullable=False),
    Column("inspections", JSONB),  # which are learned from; null for none
    Column("compare", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    # Its state and its images: how many there are of each label, and when those of inspections were recorded.
    Column("state", Text, nullable=False, server_default="open"),
    Column("reason", Text),
    Column("images", JSONB, nullable=False, server_default="{}"),
    Column("gathered_at", Timestamp),
    # The progress of the current attempt.
    Column("stage", Text),
    Column("done", Integer),
    Column("total", Integer),
    Column("stage_started_at", Timestamp),
    Column("notes", ARRAY(Text), nullable=False, server_default="{}"),
    Column("curve", JSONB, nullable=False, server_default="[]"),
    # The worker's lease. `rescues` counts expired leases and crashes.
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("rescues", Integer, nullable=False, server_default="0"),
    Column("lease_until", Timestamp),
    Column("worker", Text),
    # Its outcome.
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id")),
    Column("result", JSONB),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("queued_at", Timestamp),
    Column("started_at", Timestamp),
    Column("finished_at", Timestamp),
    one_of("state", "open", "queued", "running", "completed", "failed", "cancelled"),
    Index(None, "recipe_id", "id"),
    Index("ix_training_runs_active", "queued_at", postgresql_where=text("state IN ('queued', 'running')")),
    postgresql_with={"fillfactor": 50},
)

# The images of a run: each once, with its label (`good`, `test/good` or `test/<type>`). An image of an inspection has
# the inspection's id and the parts that it was inspected for; `was_rejected` says whether the machine had rejected it,
# though a person called it ok.
training_images = Table(
    "training_images",
    metadata,
    Column("run_id", Uuid, ForeignKey("training_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("image_sha256", LargeBinary, primary_key=True),
    Column("image_day", Date, nullable=False),
    Column("label", Text, nullable=False),
    Column("name", Text),
    Column("inspection_id", Uuid),
    Column("part_ids", ARRAY(Text), nullable=False, server_default="{}"),
    Column("was_rejected", Boolean, nullable=False, server_default=text("false")),
    Index(None, "image_day", "image_sha256"),
)
