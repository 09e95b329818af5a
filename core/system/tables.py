"""The tables of the system's state."""

from sqlalchemy import ARRAY, BigInteger, Column, Date, Float, Table, Text

from core.tables import NOW, Timestamp, metadata, one_of

# The processes that work in the background. Each updates its row every few seconds, and removes it when it stops.
workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("device", Text),
    Column("model_version_ids", ARRAY(BigInteger), nullable=False, server_default="{}"),
    Column("minibatch_fill", Float(53)),
    Column("images_per_second", Float(53)),
    Column("started_at", Timestamp, nullable=False, server_default=NOW),
    Column("heartbeat_at", Timestamp, nullable=False, server_default=NOW),
    one_of("kind", "scoring", "io", "dispatcher", "training"),
    one_of("state", "starting", "ready", "unready", "stopping"),
    postgresql_with={"fillfactor": 50},
)

# The images in the store by the day of their upload. That of today is counted again now and then.
store_days = Table(
    "store_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("images", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("counted_at", Timestamp, nullable=False, server_default=NOW),
)
