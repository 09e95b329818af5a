"""The monthly partitions of `inspections`, created ahead of time. All other rows go to a default partition."""

import datetime as dt
import logging
import time
from uuid import UUID

from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import SchemaItem

MONTHS_AHEAD = 3
LOCK_TIMEOUT = "1s"  # uploads and workers queue behind a waiting lock, so do not wait long for a slow query to end
TRIES = 3
PAUSE_SECONDS = 1.0
_LOCK = 0x4C57_0001  # an advisory lock, so that only one process creates partitions

log = logging.getLogger(__name__)


def first_id_of(moment: dt.datetime) -> UUID:
    """Return the smallest UUIDv7 of a moment. Its first 48 bits are the milliseconds since 1970 (RFC 9562)."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80)


def _month(moment: dt.datetime, offset: int) -> dt.datetime:
    months = moment.year * 12 + moment.month - 1 + offset
    return dt.datetime(months // 12, months % 12 + 1, 1, tzinfo=dt.UTC)


def is_not_partition(_: SchemaItem, name: str | None, kind: str, reflected: bool, __: SchemaItem | None) -> bool:
    """Return whether Alembic should compare a table. Partitions are not declared in `core.tables`."""
    return not (kind == "table" and reflected and (name or "").startswith("inspections_"))


def ensure(engine: Engine, *, now: dt.datetime | None = None) -> list[str]:
    """Create the missing partitions of this month and the next `MONTHS_AHEAD`. Returns their names.

    If a long query holds a lock, the partition is left out until the next call. Its rows go to the default partition
    until then.
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
            log.warning("could not create %s because a long query holds a lock; retrying in the next round", name)
    return created


_EXISTS = text("SELECT EXISTS (SELECT FROM pg_class WHERE relname = :name AND pg_table_is_visible(oid))")


def _exists(engine: Engine, name: str) -> bool:
    with engine.begin() as connection:
        return bool(connection.execute(_EXISTS, {"name": name}).scalar_one())


def _create(engine: Engine, name: str, first: UUID, end: UUID) -> bool:
    """Create a partition. Returns False if another process has created it.

    Unlike `CREATE TABLE … PARTITION OF`, attaching a table takes no exclusive lock on `inspections`, and the check
    constraint avoids a scan. Rows of the month that are in the default partition, because a clock was ahead, are moved.
    Only the default partition is locked exclusively, at most for a short time.
    """
    bounds = f"id >= '{first}' AND id < '{end}'"  # DDL takes no parameters; both ids are computed above
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
