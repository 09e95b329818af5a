"""The tables of the feed and of its consumers."""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, Table, Text, Uuid, text

from core.tables import NOW, Timestamp, id_column, metadata, one_of

# New feed entries without a number. Once committed, they get their numbers and move to `feed`, in transactions that run
# one at a time, so a reader that reads a number can read every smaller one (see `core.feed.feed`). A trigger on
# `inspections` adds the entries of final inspections, whichever version of the code inserts them.
feed_unnumbered = Table(
    "feed_unnumbered",
    metadata,
    id_column(),
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
    id_column(),
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
