"""The feed: each final inspection once, in an order that never changes and never skips.

Whatever makes an inspection final enters it in the same transaction, without a number: a trigger of `inspections` does.
Committed entries are numbered afterwards, one numbering transaction after the other, without gaps; so whoever sees a
number sees every smaller one, however long the transaction of an entry took, and no open transaction holds the others
up.

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

from core.errors import Code, Refused

Kind = Literal["final", "reviewed"]

NUMBERED_AT_ONCE = 10_000
NEWS_AT_MOST = 10_000
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
    """Microseconds since 1970; 0 for number 0."""

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
    """How far the feed reaches: numbers up to `newest` are given, numbers up to `expired` are removed.

    `expired_numbered_at` is the moment of the newest one that is removed, as in a cursor.
    """

    epoch: int
    newest: int
    expired: int
    expired_numbered_at: int


@dataclass(frozen=True)
class NewEntries:
    """What was entered since a number, in short: the recipes and kinds of the entries, or None where they are many."""

    newest: int
    kinds: frozenset[tuple[int, str]] | None

    def concerns(self, recipe_id: int | None, *, reviews: bool) -> bool:
        """Whether there may be new entries for a reader of one recipe, or of all."""
        return self.kinds is None or any(
            recipe_id in (None, of) and (reviews or event == "final") for of, event in self.kinds
        )


def append(connection: Connection, inspections: Sequence[tuple[UUID, int]], event: Kind) -> None:
    """Enter inspections (id, recipe id), unnumbered; they get their numbers once the transaction is committed.

    What becomes final enters by itself.
    """
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


# What entries are new is asked of transactions from `settled` on: all before it were over when the newest entry was
# numbered, and theirs were taken with it. Without that, a snapshot that someone holds open (a dump, say) would make
# each look read all rows that were numbered since. It means something only in the database that gave the number.
_LOOK = text(f"""
SELECT here.origin, latest.epoch, latest.at_home, feed_state.expired, feed_state.expired_numbered_at,
    greatest(last.number, feed_state.expired) AS newest, last.settled,
    -- The order is not needed, but keeps the planner to the index.
    (SELECT true FROM feed_unnumbered WHERE transaction >= last.settled ORDER BY transaction LIMIT 1) IS NOT NULL
        AS waiting
FROM feed_state
CROSS JOIN (SELECT {_ORIGIN} AS origin) AS here
LEFT JOIN LATERAL (
    SELECT epoch, began_after, origin = here.origin AS at_home FROM feed_epochs ORDER BY id DESC LIMIT 1
) AS latest ON true
CROSS JOIN LATERAL (
    SELECT max(newest.number) AS number,
        coalesce(max(newest.settled) FILTER (WHERE latest.at_home AND newest.number > latest.began_after), 0) AS settled
    FROM (SELECT number, settled FROM feed ORDER BY number DESC LIMIT 1) AS newest
) AS last
""")  # noqa: S608 - the expression is a constant of ours

_NUMBER = text("""
WITH taken AS (
    DELETE FROM feed_unnumbered WHERE id IN (
        SELECT id FROM feed_unnumbered WHERE transaction >= :settled ORDER BY transaction, id LIMIT :at_most
    ) RETURNING *
), counted AS (
    SELECT count(*) < :at_most AS all_of_them FROM taken
)
INSERT INTO feed (number, inspection_id, recipe_id, event, numbered_at, settled)
SELECT :newest + row_number() OVER (ORDER BY transaction, id), inspection_id, recipe_id, event, clock_timestamp(),
    CASE WHEN all_of_them THEN CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint) ELSE :settled END
FROM taken, counted
""")


def number_entries(connection: Connection, *, at_most: int = NUMBERED_AT_ONCE) -> State:
    """Number up to `at_most` committed entries, and return how far the feed reaches now.

    Where nothing waits for a number it takes no lock. A database that was restored begins its new epoch here; commit
    before a cursor is refused, or the epoch is gone with the transaction.
    """
    seen = connection.execute(_LOOK).one()
    if not seen.at_home or seen.waiting:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        # A statement of its own: it sees what the former holder of the lock has numbered.
        seen = connection.execute(_LOOK).one()
    epoch = seen.epoch if seen.at_home else _begin_epoch(connection, seen.origin, seen.newest)
    taken = 0
    if seen.waiting:
        given = {"settled": seen.settled, "newest": seen.newest, "at_most": at_most}
        taken = connection.execute(_NUMBER, given).rowcount
    expired_at = _microseconds(seen.expired_numbered_at) if seen.expired_numbered_at is not None else 0
    return State(epoch, seen.newest + taken, seen.expired, expired_at)


def _begin_epoch(connection: Connection, origin: str, newest: int) -> int:
    epoch = secrets.randbits(62)
    connection.execute(
        text("INSERT INTO feed_epochs (epoch, origin, began_after) VALUES (:epoch, :origin, :newest)"),
        {"epoch": epoch, "origin": origin, "newest": newest},
    )
    return epoch


def start(connection: Connection, state: State, after: str | None) -> Cursor:
    """The place that a client names: its cursor, `now` for the end, `oldest` or None for the oldest entry kept.

    Refuses, with `resume_after` to go on from: a cursor of another epoch, or of an entry that a restore has undone
    (CURSOR_EPOCH), or of one that retention has removed with others behind it (CURSOR_EXPIRED).
    """
    if after is None or after == "oldest":
        return _at(connection, state, state.expired)
    if after == "now":
        return _at(connection, state, state.newest)
    return check_cursor(connection, state, Cursor.parse(after))


def check_cursor(connection: Connection, state: State, cursor: Cursor) -> Cursor:
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
    return Cursor(state.epoch, place, _numbered_at(connection, state, place) or 0)


def _numbered_at(connection: Connection, state: State, place: int) -> int | None:
    """When a number was given; None if its entry is not there, 0 for number 0."""
    if place == state.expired:
        return state.expired_numbered_at
    moment: dt.datetime | None = connection.execute(
        text("SELECT numbered_at FROM feed WHERE number = :number"), {"number": place}
    ).scalar()
    return None if moment is None else _microseconds(moment)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _is_there(connection: Connection, state: State, cursor: Cursor) -> bool:
    """Whether the entry is the one that the cursor meant; one that was removed with others behind it is not asked."""
    return cursor.number < state.expired or _numbered_at(connection, state, cursor.number) == cursor.numbered_at


def _resume_after(connection: Connection, state: State, cursor: Cursor) -> str | None:
    """Where a client goes on that had read as far as a cursor of former times, so that it misses nothing."""
    if cursor.number >= state.expired and _is_there(connection, state, cursor):
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
    recipe_id: int | None = None,
    reviews: bool = False,
    from_oldest: bool = False,
) -> Page:
    """The entries behind a place, up to `limit`; a page that is not full leads to the end of the feed.

    Args:
        recipe_id: only inspections of this recipe.
        reviews: also entries of inspections that were reviewed.
        from_oldest: the reader starts at the oldest entry, so expired entries are no loss.

    Refuses a place that has expired since it was checked.
    """
    narrowed = "" if reviews else "AND event = 'final'"
    given: dict[str, object] = {"after": after.number, "newest": state.newest, "limit": limit}
    if recipe_id is not None:
        narrowed += " AND recipe_id = :recipe_id"
        given["recipe_id"] = recipe_id
    rows = connection.execute(text(_READ.format(narrowed=narrowed)), given).all()
    if rows[0].expired > state.expired and not from_oldest:
        _check_kept(connection, _removed_since(connection, state), after)
    entries = [
        Entry(Cursor(state.epoch, row.number, _microseconds(row.numbered_at)), row.inspection_id, row.event)
        for row in rows
        if row.number is not None
    ]
    full = len(entries) == limit
    return Page(entries, entries[-1].cursor if full else _at(connection, state, state.newest))


def number_and_summarise(connection: Connection, behind: int) -> NewEntries:
    """Number what waits, and say in short what there is behind a number."""
    newest = number_entries(connection).newest
    if newest - behind > NEWS_AT_MOST:
        return NewEntries(newest, None)
    rows = connection.execute(
        text("SELECT DISTINCT recipe_id, event FROM feed WHERE number > :behind AND number <= :newest"),
        {"behind": behind, "newest": newest},
    )
    return NewEntries(newest, frozenset((row.recipe_id, row.event) for row in rows))


def _removed_since(connection: Connection, state: State) -> State:
    row = connection.execute(text("SELECT expired, expired_numbered_at FROM feed_state")).one()
    return replace(state, expired=row.expired, expired_numbered_at=_microseconds(row.expired_numbered_at))


def expire(connection: Connection, *, days: int, at_most: int) -> int:
    """Remove up to `at_most` of the oldest entries that were numbered more than `days` ago; returns how many."""
    return (
        connection.execute(
            text("""
            WITH oldest AS (
                SELECT number, numbered_at FROM feed ORDER BY number LIMIT :at_most
            ), removed AS (
                DELETE FROM feed USING oldest
                WHERE feed.number = oldest.number AND oldest.numbered_at < now() - make_interval(days => :days)
                RETURNING feed.number, feed.numbered_at
            )
            UPDATE feed_state SET expired = last.number, expired_numbered_at = last.numbered_at
            FROM (
                SELECT number, numbered_at, count(*) OVER () AS removed FROM removed ORDER BY number DESC LIMIT 1
            ) AS last
            RETURNING last.removed
        """),
            {"days": days, "at_most": at_most},
        ).scalar()
        or 0
    )
