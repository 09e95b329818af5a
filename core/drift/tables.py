"""The tables of drift: daily counts of finished inspections, reference scores, and episodes.

A day is a day in UTC, by the time at which the image was accepted. `station_id` is '' for images without a station.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from core.tables import NEW_ID, NOW, Timestamp, metadata, one_of


def _of_a_day() -> list[Column[Any]]:
    """Return the columns that say what is counted: inspections of a recipe, day, model version and station."""
    return [
        Column("recipe_id", BigInteger, primary_key=True, autoincrement=False),
        Column("day", Date, primary_key=True),
        Column("model_version_id", BigInteger, primary_key=True, autoincrement=False),
        Column("station_id", Text, primary_key=True),
    ]


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


# Completed inspections by the machine's verdict.
drift_days = Table(
    "drift_days",
    metadata,
    *_of_a_day(),
    _count("ok"),
    _count("ng"),
    _count("review"),
    postgresql_with={"fillfactor": 50},
)

# Histograms of completed inspections. `bin` is a bin of `core.drift.grids`.
drift_histograms = Table(
    "drift_histograms",
    metadata,
    *_of_a_day(),
    Column("measure", Text, primary_key=True),
    Column("bin", Integer, primary_key=True, autoincrement=False),
    _count("count"),
    one_of("measure", "score", "brightness", "contrast", "sharpness"),
    postgresql_with={
        "fillfactor": 70,
        "autovacuum_vacuum_scale_factor": 0.0,
        "autovacuum_vacuum_threshold": 5000,
    },
)

# One row: the newest entry of the feed that is counted, and the time up to which finished inspections are counted.
drift_state = Table(
    "drift_state",
    metadata,
    Column("singleton", Integer, primary_key=True, server_default="1", autoincrement=False),
    _count("feed_number"),
    Column("counted_until", Timestamp),
    CheckConstraint("singleton = 1", name="one_row"),
)

# From the first evaluation that finds drift until the first that finds none. `summary` is from its begin.
drift_episodes = Table(
    "drift_episodes",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("recipe_id", BigInteger, ForeignKey("recipes.id"), nullable=False),
    Column("model_version_id", BigInteger, ForeignKey("model_versions.id"), nullable=False),
    Column("summary", JSONB, nullable=False),
    Column("began_at", Timestamp, nullable=False, server_default=NOW),
    Column("ended_at", Timestamp),
    Index(None, "recipe_id", "id"),
    Index("ix_drift_episodes_open", "recipe_id", unique=True, postgresql_where=text("ended_at IS NULL")),
)
