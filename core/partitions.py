"""The monthly partitions of `inspections`. They are made ahead of time; a default one catches what none covers."""

import datetime as dt
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.schema import SchemaItem

MONTHS_AHEAD = 3
_LOCK = 0x4C57_0001  # any number of our own: two processes must not make the same partition at once


def first_id_of(moment: dt.datetime) -> UUID:
    """The smallest UUIDv7 of a moment: RFC 9562 puts the milliseconds since 1970 into the first 48 bits."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80)


def _month(moment: dt.datetime, offset: int) -> dt.datetime:
    months = moment.year * 12 + moment.month - 1 + offset
    return dt.datetime(months // 12, months % 12 + 1, 1, tzinfo=dt.UTC)


def is_no_partition(_: SchemaItem, name: str | None, kind: str, reflected: bool, __: SchemaItem | None) -> bool:
    """Whether Alembic should compare something: partitions come and go with the months and are declared nowhere."""
    return not (kind == "table" and reflected and (name or "").startswith("inspections_"))


def ensure(connection: Connection, *, now: dt.datetime | None = None) -> list[str]:
    """Make the partitions of this month and of the next ones that are missing; return their names."""
    moment = now or dt.datetime.now(dt.UTC)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    made = []
    for offset in range(MONTHS_AHEAD + 1):
        begin, end = _month(moment, offset), _month(moment, offset + 1)
        name = f"inspections_{begin:%Y_%m}"
        if connection.execute(text("SELECT to_regclass(:name)"), {"name": name}).scalar() is None:
            # Identifiers and bounds of DDL cannot be bound parameters; all of them are made here from dates.
            connection.execute(
                text(
                    f"CREATE TABLE {name} PARTITION OF inspections "
                    f"FOR VALUES FROM ('{first_id_of(begin)}') TO ('{first_id_of(end)}')"
                )
            )
            made.append(name)
    return made
