"""The tables of statistics: how many inspections became final, counted once and added up when they are read."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, SmallInteger, Table, Text

from core.tables import Timestamp, metadata

# Numbers of final inspections by quarter of an hour in which they were accepted; see `core.statistics.counting`.
inspection_counts = Table(
    "inspection_counts",
    metadata,
    Column("recipe_id", BigInteger, nullable=False),
    Column("begins_at", Timestamp, nullable=False),
    Column("line_id", Text),
    Column("station_id", Text),
    Column("status", Text, nullable=False),
    Column("verdict", Text),
    Column("duration_bin", SmallInteger),
    Column("number", BigInteger, nullable=False),
    Index(
        "ix_inspection_counts_cell",
        "recipe_id",
        "begins_at",
        "line_id",
        "station_id",
        "status",
        "verdict",
        "duration_bin",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    postgresql_with={"fillfactor": 70},
)

# One row: how far the inspections are counted.
inspection_counts_state = Table(
    "inspection_counts_state",
    metadata,
    Column("singleton", Integer, primary_key=True, server_default="1", autoincrement=False),
    Column("position", BigInteger, nullable=False),
    Column("complete_from", Timestamp),
    CheckConstraint("singleton = 1", name="one_row"),
)
