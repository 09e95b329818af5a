"""Feed consumers: named cursors that the server saves. A consumer belongs to the API key that created it."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.functions import now

from core.access import audit
from core.errors import Code, Refused
from core.feed import feed
from core.feed.feed import Cursor, State
from core.feed.tables import feed_consumers

INTERNAL = "linewatch:"
"""The prefix of consumers that are parts of Linewatch; clients cannot use it."""

ABANDONED_DAYS = 365
"""A consumer is deleted this long after its last acknowledgement, if entries that it had not read were removed."""


@dataclass(frozen=True)
class Reader:
    """The API key of a request on consumers.

    Attributes:
        actor: the API key as the audit log names it.
        is_admin: whether it may list, take over and delete the consumers of other keys.
    """

    actor: str
    is_admin: bool


@dataclass(frozen=True)
class Consumer:
    """A consumer.

    Attributes:
        owner: the actor it belongs to; None for a consumer from before owners were stored, which any key may claim.
        cursor: the last entry that it has acknowledged.
    """

    name: str
    owner: str | None
    cursor: Cursor
    created_at: dt.datetime
    acknowledged_at: dt.datetime


def _consumer(row: Row[Any]) -> Consumer:
    return Consumer(row.name, row.owner, Cursor.from_bytes(row.cursor), row.created_at, row.acknowledged_at)


def list_visible(connection: Connection, reader: Reader) -> list[Consumer]:
    """Return the consumers of a reader, or all of them for an admin, sorted by name."""
    query = select(feed_consumers).order_by(feed_consumers.c.name)
    if not reader.is_admin:
        query = query.where(or_(feed_consumers.c.owner == reader.actor, feed_consumers.c.owner.is_(None)))
    return [_consumer(row) for row in connection.execute(query)]


def find(connection: Connection, name: str) -> Consumer | None:
    """Return a consumer by its name, or None before its first acknowledgement."""
    row = connection.execute(select(feed_consumers).where(feed_consumers.c.name == name)).one_or_none()
    return None if row is None else _consumer(row)


def acknowledge(connection: Connection, state: State, name: str, upto: str, *, reader: Reader) -> Consumer:
    """Save that a consumer has processed everything up to a cursor, `now` or `oldest`. Create it if it is new.

    A late acknowledgement of an earlier cursor changes nothing. If an admin acknowledges for another key's consumer,
    the admin becomes its owner.

    Raises:
        Refused: FORBIDDEN if it belongs to another API key; otherwise as `feed.start_cursor`.
    """
    cursor = bytes(feed.start_cursor(connection, state, upto))
    _claim(connection, name, reader)
    saved = feed_consumers.c.cursor
    connection.execute(
        upsert(feed_consumers)
        .values(name=name, owner=reader.actor, cursor=cursor)
        .on_conflict_do_update(
            index_elements=["name"],
            set_={"cursor": cursor, "acknowledged_at": now()},
            # The first 8 bytes are the epoch, always the current one for a new cursor. The rest sorts in feed order.
            where=or_(func.substring(saved, 1, 8) != cursor[:8], saved < cursor),
        )
    )
    return _consumer(connection.execute(select(feed_consumers).where(feed_consumers.c.name == name)).one())


def delete_consumer(connection: Connection, name: str, *, reader: Reader) -> None:
    """Delete a consumer. Its name can be used again.

    Raises:
        Refused: NOT_FOUND; FORBIDDEN if it belongs to another API key.
    """
    owner = _lock_owner(connection, name)
    if owner is _MISSING:
        raise Refused(Code.NOT_FOUND, f"There is no consumer {name!r}.")
    _check_owner(name, owner, reader)
    connection.execute(delete(feed_consumers).where(feed_consumers.c.name == name))
    audit.record(connection, actor=reader.actor, action="consumer.deleted", subject=f"consumer:{name}", owner=owner)


_ABANDONED = text("""
    DELETE FROM feed_consumers USING (
        SELECT name FROM feed_consumers, feed_state
        WHERE acknowledged_at < now() - make_interval(days => :days) AND NOT starts_with(name, :internal)
          AND substring(cursor FROM 9 FOR 8) < int8send(expired)  -- the number of the cursor
        ORDER BY acknowledged_at LIMIT :at_most FOR UPDATE OF feed_consumers SKIP LOCKED
    ) AS abandoned
    WHERE feed_consumers.name = abandoned.name
    RETURNING feed_consumers.name, feed_consumers.owner, feed_consumers.acknowledged_at
""")


def delete_abandoned(connection: Connection, *, at_most: int) -> int:
    """Delete consumers that stopped reading `ABANDONED_DAYS` ago and have lost entries since. Returns how many."""
    parameters = {"days": ABANDONED_DAYS, "internal": INTERNAL, "at_most": at_most}
    rows = connection.execute(_ABANDONED, parameters).all()
    for row in rows:
        audit.record(
            connection,
            actor="retention",
            action="consumer.deleted",
            subject=f"consumer:{row.name}",
            owner=row.owner,
            acknowledged_at=row.acknowledged_at.isoformat(),
        )
    return len(rows)


_MISSING = object()


def _claim(connection: Connection, name: str, reader: Reader) -> None:
    """Check that a reader may move a consumer, and make it the owner. If the consumer is new, only audit it."""
    owner = _lock_owner(connection, name)
    subject = f"consumer:{name}"
    if owner is _MISSING:
        audit.record(connection, actor=reader.actor, action="consumer.created", subject=subject)
        return
    if owner == reader.actor:
        return
    _check_owner(name, owner, reader)
    connection.execute(feed_consumers.update().where(feed_consumers.c.name == name).values(owner=reader.actor))
    audit.record(connection, actor=reader.actor, action="consumer.taken_over", subject=subject, owner=owner)


def _lock_owner(connection: Connection, name: str) -> Any:
    row = connection.execute(
        select(feed_consumers.c.owner).where(feed_consumers.c.name == name).with_for_update(key_share=True)
    ).one_or_none()
    return _MISSING if row is None else row.owner


def _check_owner(name: str, owner: str | None, reader: Reader) -> None:
    if owner is not None and owner != reader.actor and not reader.is_admin:
        raise Refused(Code.FORBIDDEN, f"The consumer {name!r} belongs to another API key; an admin can take it over.")
