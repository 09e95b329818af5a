"""The feed: each final inspection once, in an order that never changes and never skips.

Whoever makes an inspection final enters it in the same transaction, without a number. Committed entries are numbered
afterwards, one numbering transaction after the other, without gaps; so whoever sees a number sees every smaller one,
however long the transaction of an entry took, and no open transaction holds the others up.

A cursor is an epoch, a number, and the moment at which that number was given. A restored database begins a new epoch:
numbers that were given out after its backup will be given again, to other inspections. The moment tells whether an
entry is still the one that the cursor meant, also where a restore could not be noticed (files copied back in place).
"""

import base64
import binascii
import datetime as dt
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self
from uuid import UUID

from sqlalchemy import Connection, text

from core import recipes
from core.errors import Code, Refused

Kind = Literal["final", "reviewed"]

NUMBERED_AT_ONCE = 10_000
_LOCK = 0x4C57_0003  # an advisory lock: one numbering transaction after the other

# Which database this is: another after a dump was loaded (database or table), after a recovery to a point in time and
# after a standby took over (timeline), and in another cluster.
_ORIGIN = """concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()), CAST('feed_state'::regclass AS oid))"""


@dataclass(frozen=True)
class Cursor:
    """A place in the feed: behind the entry of this number. Number 0 is before the first one."""

    epoch: int
    number: int
    numbered_at: int
    """Microseconds since 1970; 0 where the entry is not kept any more."""

    _FORM = struct.Struct(">QQQ")

    def __bytes__(self) -> bytes:
        return self._FORM.pack(self.epoch, self.number, self.numbered_at)

    def __str__(self) -> str:
        """As clients store it."""
        return base64.urlsafe_b64encode(bytes(self)).decode()

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        return cls(*cls._FORM.unpack(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """What a client has stored; refuses what this feed never gave out."""
        try:
            return cls.of_bytes(base64.b64decode(text, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, struct.error):
            raise Refused(Code.INVALID_CURSOR, "after: not a cursor that the feed gave out.") from None


@dataclass(frozen=True)
class Entry:
    """One place in the feed: an inspection that became final, or was reviewed."""

    cursor: Cursor
    inspection_id: UUID
    event: Kind


@dataclass(frozen=True)
class Page:
    """Entries in feed order, and where the next page begins."""

    entries: list[Entry]
    following: Cursor


@dataclass(frozen=True)
class State:
    """How far the feed reaches: numbers up to `newest` are given, numbers up to `expired` are removed."""

    epoch: int
    newest: int
    expired: int


def append(connection: Connection, inspections: Sequence[tuple[UUID, int]], event: Kind) -> None:
    """Enter inspections (id, recipe id), unnumbered; they get their numbers once the transaction is committed."""
    if inspections:
        connection.execute(
            text("""
                INSERT INTO feed_unnumbered (inspection_id, recipe_id, event)
                SELECT id, recipe_id, :event FROM unnest(CAST(:ids AS uuid[]), CAST(:recipe_ids AS bigint[]))
                    AS _(id, recipe_id)
            """),
            {
                "ids": [inspection_id for inspection_id, _ in inspections],
                "recipe_ids": [recipe_id for _, recipe_id in inspections],
                "event": event,
            },
        )


_LOOK = text(f"""
SELECT feed_state.newest, feed_state.expired, latest.epoch, latest.origin IS NOT DISTINCT FROM {_ORIGIN} AS at_home,
    {_ORIGIN} AS origin, EXISTS (SELECT FROM feed_unnumbered) AS waiting
FROM feed_state LEFT JOIN LATERAL (
    SELECT epoch, origin FROM feed_epochs ORDER BY id DESC LIMIT 1
) AS latest ON true
""")  # noqa: S608 - the expression is a constant of ours

_NUMBER = text("""
WITH taken AS (
    DELETE FROM feed_unnumbered WHERE id IN (SELECT id FROM feed_unnumbered ORDER BY id LIMIT :at_most) RETURNING *
), numbered AS (
    INSERT INTO feed (number, inspection_id, recipe_id, event, numbered_at)
    SELECT feed_state.newest + row_number() OVER (ORDER BY taken.id), inspection_id, recipe_id, event, clock_timestamp()
    FROM taken, feed_state
    RETURNING number
)
UPDATE feed_state SET newest = feed_state.newest + (SELECT count(*) FROM numbered) RETURNING newest, expired
""")


def number(connection: Connection, *, at_most: int = NUMBERED_AT_ONCE) -> State:
    """Give numbers to entries that are committed, `at_most` so many, and return how far the feed reaches now.

    Where nothing waits for a number it takes no lock. A database that was restored begins its new epoch here; commit
    before a cursor is refused, or the epoch is gone with the transaction.
    """
    seen = connection.execute(_LOOK).one()
    if seen.at_home and not seen.waiting:
        return State(seen.epoch, seen.newest, seen.expired)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    # A statement of its own: it sees what the former holder of the lock has numbered.
    seen = connection.execute(_LOOK).one()
    epoch = seen.epoch if seen.at_home else _begin_epoch(connection, seen.origin, seen.newest)
    state = connection.execute(_NUMBER, {"at_most": at_most}).one()
    return State(epoch, state.newest, state.expired)


def _begin_epoch(connection: Connection, origin: str, newest: int) -> int:
    epoch = secrets.randbits(62)
    connection.execute(
        text("INSERT INTO feed_epochs (epoch, origin, began_after) VALUES (:epoch, :origin, :newest)"),
        {"epoch": epoch, "origin": origin, "newest": newest},
    )
    return epoch


def start(connection: Connection, state: State, after: str | None) -> Cursor:
    """The place that a client names: its cursor, `now` for the end, None for the oldest entry that is kept.

    Refuses, with `resume_after` to go on from: a cursor of another epoch, or of an entry that a restore has undone
    (CURSOR_EPOCH), or of one that retention has removed with others behind it (CURSOR_EXPIRED).
    """
    if after is None:
        return _at(connection, state, state.expired)
    if after == "now":
        return _at(connection, state, state.newest)
    return check(connection, state, Cursor.parse(after))


def check(connection: Connection, state: State, cursor: Cursor) -> Cursor:
    """The cursor, if the feed can be read on from it; refuses as `start` does."""
    if cursor.epoch != state.epoch or cursor.number > state.newest or not _is_there(connection, state, cursor):
        raise Refused(
            Code.CURSOR_EPOCH,
            "The database was restored since this cursor was given out. Go on with resume_after, or without a cursor "
            "where it is null; what was finished after the backup comes again under other cursors, so look at the ids.",
            resume_after=_resume_after(connection, state, cursor),
        )
    _check_kept(connection, state, cursor)
    return cursor


def _check_kept(connection: Connection, state: State, cursor: Cursor) -> None:
    if cursor.number < state.expired:
        raise Refused(
            Code.CURSOR_EXPIRED,
            f"{state.expired - cursor.number} entries behind this cursor are older than the feed goes back and were "
            "removed. Go on with resume_after; what is missing can be had from GET /v1/inspections?since=…",
            resume_after=str(_at(connection, state, state.expired)),
        )


def _at(connection: Connection, state: State, place: int) -> Cursor:
    return Cursor(state.epoch, place, _numbered_at(connection, place) or 0)


def _numbered_at(connection: Connection, place: int) -> int | None:
    moment: dt.datetime | None = connection.execute(
        text("SELECT numbered_at FROM feed WHERE number = :number"), {"number": place}
    ).scalar()
    return None if moment is None else _microseconds(moment)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _is_there(connection: Connection, state: State, cursor: Cursor) -> bool:
    """Whether the entry is the one that the cursor meant; one that has expired cannot be asked any more."""
    if cursor.number <= state.expired or cursor.numbered_at == 0:
        return True
    return _numbered_at(connection, cursor.number) == cursor.numbered_at


def _resume_after(connection: Connection, state: State, cursor: Cursor) -> str | None:
    """Where a client goes on that had read as far as a cursor of former times, so that it misses nothing."""
    if cursor.numbered_at and _numbered_at(connection, cursor.number) == cursor.numbered_at:
        return str(_at(connection, state, cursor.number))
    # The entry was undone. What it has in common with the present feed ends where the first later epoch began.
    common = connection.execute(
        text("""
            SELECT min(later.began_after) FROM feed_epochs AS its
            JOIN feed_epochs AS later ON later.id > its.id WHERE its.epoch = :epoch
        """),
        {"epoch": cursor.epoch},
    ).scalar()
    if common is None or common < state.expired:
        return None
    return str(_at(connection, state, min(common, cursor.number)))


# One statement, so that what retention has removed by now is known for the very moment of reading.
_READ = """
SELECT feed_state.expired, entry.* FROM feed_state LEFT JOIN LATERAL (
    SELECT number, inspection_id, event, numbered_at FROM feed
    WHERE number > :after AND number <= :newest {narrowed}
    ORDER BY number LIMIT :limit
) AS entry ON true
ORDER BY entry.number
"""


def read(
    connection: Connection,
    state: State,
    after: Cursor,
    *,
    limit: int,
    recipe: str | None = None,
    reviews: bool = False,
) -> Page:
    """The entries behind a place, up to `limit`; a page that is not full leads to the end of the feed.

    Args:
        recipe: only its inspections; refuses an unknown one.
        reviews: also entries of inspections that were reviewed.

    Refuses a place that has expired since it was checked.
    """
    narrowed = "" if reviews else "AND event = 'final'"
    given: dict[str, object] = {"after": after.number, "newest": state.newest, "limit": limit}
    if recipe is not None:
        narrowed += " AND recipe_id = :recipe_id"
        given["recipe_id"] = recipes.get(connection, recipe).id
    rows = connection.execute(text(_READ.format(narrowed=narrowed)), given).all()
    _check_kept(connection, replace(state, expired=rows[0].expired), after)
    entries = [
        Entry(Cursor(state.epoch, row.number, _microseconds(row.numbered_at)), row.inspection_id, row.event)
        for row in rows
        if row.number is not None
    ]
    full = len(entries) == limit
    return Page(entries, entries[-1].cursor if full else _at(connection, state, state.newest))


def expire(connection: Connection, *, days: int, at_most: int) -> int:
    """Remove the oldest entries, `at_most` so many, that were numbered more than `days` ago; returns how many."""
    return (
        connection.execute(
            text("""
            WITH oldest AS (
                SELECT number, numbered_at FROM feed ORDER BY number LIMIT :at_most
            ), removed AS (
                DELETE FROM feed USING oldest
                WHERE feed.number = oldest.number AND oldest.numbered_at < now() - make_interval(days => :days)
                RETURNING feed.number
            )
            UPDATE feed_state SET expired = last.number
            FROM (SELECT max(number) AS number, count(*) AS removed FROM removed) AS last WHERE last.removed > 0
            RETURNING last.removed
        """),
            {"days": days, "at_most": at_most},
        ).scalar()
        or 0
    )
