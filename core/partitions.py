"""The monthly partitions of `inspections`. They are created ahead of time; a default partition takes all other rows."""

import datetime as dt
import logging
import time
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import SchemaItem

MONTHS_AHEAD = 3
LOCK_TIMEOUT = "2s"  # the line must not wait behind a partition that waits for a long query
TRIES = 3
PAUSE_SECONDS = 1.0
_LOCK = 0x4C57_0001  # an advisory lock: only one process creates partitions

log = logging.getLogger(__name__)


def first_id_of(moment: dt.datetime) -> UUID:
    """The smallest UUIDv7 of a moment: RFC 9562 puts the milliseconds since 1970 into the first 48 bits."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80)


def _month(moment: dt.datetime, offset: int) -> dt.datetime:
    months = moment.year * 12 + moment.month - 1 + offset
    return dt.datetime(months // 12, months % 12 + 1, 1, tzinfo=dt.UTC)


def is_no_partition(_: SchemaItem, name: str | None, kind: str, reflected: bool, __: SchemaItem | None) -> bool:
    """Whether Alembic should compare a table. Partitions are not declared anywhere."""
    return not (kind == "table" and reflected and (name or "").startswith("inspections_"))


def ensure(engine: Engine, *, now: dt.datetime | None = None) -> list[str]:
    """Create the missing partitions of this month and of the next ones; returns their names.

    A partition that cannot be created now, because a long query holds a lock, is tried again in the next round: until
    then its rows go to the default partition.
    """
    moment = now or dt.datetime.now(dt.UTC)
    created = []
    for offset in range(MONTHS_AHEAD + 1):
        begin, end = _month(moment, offset), _month(moment, offset + 1)
        name = f"inspections_{begin:%Y_%m}"
        if _exists(engine, name):
            continue
        for _ in range(TRIES):
            try:
                if _create(engine, name, first_id_of(begin), first_id_of(end)):
                    created.append(name)
                break
            except OperationalError as error:
                if not isinstance(error.orig, LockNotAvailable):
                    raise
                time.sleep(PAUSE_SECONDS)
        else:
            log.warning("%s cannot be created now, because a long query holds a lock; it is tried again", name)
    return created


_EXISTS = text("SELECT EXISTS (SELECT FROM pg_class WHERE relname = :name AND pg_table_is_visible(oid))")


def _exists(engine: Engine, name: str) -> bool:
    with engine.begin() as connection:
        return bool(connection.execute(_EXISTS, {"name": name}).scalar_one())


def _create(engine: Engine, name: str, first: UUID, end: UUID) -> bool:
    """Create a partition. Returns False if another process has created it.

    A table that is attached needs no exclusive lock on `inspections`, unlike `CREATE TABLE … PARTITION OF`, and its
    check constraint saves the scan. Rows of the month that are in the default partition, because a clock was ahead, are
    moved. Only the default partition is locked exclusively, and nobody waits long behind that.
    """
    bounds = f"id >= '{first}' AND id < '{end}'"  # DDL takes no parameters; these are ids that are computed here
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if connection.execute(_EXISTS, {"name": name}).scalar_one():
            return False
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"CREATE TABLE {name} (LIKE inspections INCLUDING ALL)"))
        connection.execute(text(f"ALTER TABLE {name} ADD CONSTRAINT {name}_bounds CHECK ({bounds})"))
        connection.execute(text("LOCK TABLE inspections_default IN ACCESS EXCLUSIVE MODE"))
        connection.execute(
            text(f"""
                WITH moved AS (DELETE FROM inspections_default WHERE {bounds} RETURNING *)
                INSERT INTO {name} SELECT * FROM moved
            """)  # noqa: S608 - see above
        )
        connection.execute(
            text(f"ALTER TABLE inspections ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{end}')")
        )
        connection.execute(text(f"ALTER TABLE {name} DROP CONSTRAINT {name}_bounds"))
    return True
