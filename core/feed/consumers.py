"""Consumers of the feed whose cursor the server keeps, for clients that can store nothing."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.functions import now

from core.errors import Code, Refused
from core.feed import feed
from core.feed.feed import Cursor, State
from core.tables import feed_consumers

OWN = "linewatch:"
"""How the names of consumers begin that are parts of Linewatch; no client moves or forgets them."""


@dataclass(frozen=True)
class Consumer:
    """One consumer and the place behind the last entry that it has acknowledged."""

    name: str
    cursor: Cursor
    created_at: dt.datetime
    acknowledged_at: dt.datetime


def _consumer(row: Row[Any]) -> Consumer:
    return Consumer(row.name, Cursor.of_bytes(row.cursor), row.created_at, row.acknowledged_at)


def list_all(connection: Connection) -> list[Consumer]:
    """All consumers, by name."""
    return [_consumer(row) for row in connection.execute(select(feed_consumers).order_by(feed_consumers.c.name))]


def find(connection: Connection, name: str) -> Consumer | None:
    """The consumer of this name; None until it has acknowledged something."""
    row = connection.execute(select(feed_consumers).where(feed_consumers.c.name == name)).one_or_none()
    return None if row is None else _consumer(row)


def acknowledge(connection: Connection, state: State, name: str, upto: str) -> Consumer:
    """Note that a consumer is done with everything up to a cursor, to `now` or to `oldest`; makes it if it is new.

    An acknowledgement that comes late, of less than was acknowledged, changes nothing. Refuses as `feed.start` does.
    """
    cursor = bytes(feed.start(connection, state, upto))
    kept = feed_consumers.c.cursor
    connection.execute(
        upsert(feed_consumers)
        .values(name=name, cursor=cursor)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={"cursor": cursor, "acknowledged_at": now()},
            # A cursor's bytes are in the order of its numbers, behind the eight of the epoch; that is the present one.
            where=or_(func.substring(kept, 1, 8) != cursor[:8], kept < cursor),
        )
    )
    return _consumer(connection.execute(select(feed_consumers).where(feed_consumers.c.name == name)).one())


def forget(connection: Connection, name: str) -> None:
    """Delete a consumer; the name can be used again. Rejects an unknown one."""
    gone = connection.execute(delete(feed_consumers).where(feed_consumers.c.name == name)).rowcount
    if not gone:
        raise Refused(Code.NOT_FOUND, f"There is no consumer {name!r}.")
