"""The feed: each final inspection once, in an order that never changes and has no gaps.

A trigger on `inspections` adds an entry without a number in the transaction that makes an inspection final. Entries get
their numbers after their transaction has committed, in numbering transactions that run one at a time. A reader that
reads a number can therefore read every smaller one, however long each transaction took, and an open transaction delays
only its own entries.

A cursor holds an epoch, a number and the time at which the number was assigned. A restored database begins a new epoch,
because it assigns the numbers from after its backup again, to other inspections. The time shows whether a number still
belongs to the same entry, even if the restore went unnoticed because the files were copied back in place.
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

MAX_NUMBERED_AT_ONCE = 10_000
MAX_SUMMARISED = 10_000
_LOCK = 0x4C57_0003  # an advisory lock, so that numbering transactions run one at a time

# Identifies this database. It changes in another cluster (system identifier), after a point-in-time recovery or a
# failover to a standby (timeline), and after a dump was loaded (OID of the database or the table).
_ORIGIN = """concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()), CAST('feed_state'::regclass AS oid))"""


@dataclass(frozen=True)
class Cursor:
    """A position in the feed: right after the entry with this number. Number 0 is before the first entry."""

    epoch: int
    number: int
    numbered_at: int
    """Microseconds since 1970-01-01 UTC; 0 for number 0."""

    _FORM = struct.Struct(">QQQ")

    def __bytes__(self) -> bytes:
        return self._FORM.pack(self.epoch, self.number, self.numbered_at)

    def __str__(self) -> str:
        """Return the text that clients store."""
        return base64.urlsafe_b64encode(bytes(self)).decode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(*cls._FORM.unpack(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text that a client stored.

        Raises:
            Refused: INVALID_CURSOR.
        """
        try:
            return cls.from_bytes(base64.b64decode(text, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, struct.error):
            raise Refused(Code.INVALID_CURSOR, "after: not a cursor of this feed.") from None


@dataclass(frozen=True)
class Entry:
    """An entry of the feed: an inspection that became final or was reviewed."""

    cursor: Cursor
    inspection_id: UUID
    event: Kind


@dataclass(frozen=True)
class Page:
    """Entries in feed order, and the cursor of the next page."""

    entries: list[Entry]
    next_cursor: Cursor


@dataclass(frozen=True)
class State:
    """The range of the feed.

    Attributes:
        newest: the newest number assigned; 0 if there is none.
        expired: the newest number that retention has removed; 0 if there is none.
        expired_numbered_at: when `expired` was assigned, as in a cursor.
    """

    epoch: int
    newest: int
    expired: int
    expired_numbered_at: int


@dataclass(frozen=True)
class NewEntries:
    """A summary of the entries after a number.

    Attributes:
        newest: the newest number assigned.
        kinds: the recipe ids and kinds of the entries; None if there are more than `MAX_SUMMARISED`.
    """

    newest: int
    kinds: frozenset[tuple[int, str]] | None

    def concerns(self, recipe_id: int | None, *, reviews: bool) -> bool:
        """Return whether there may be new entries for a reader of one recipe, or of all if `recipe_id` is None."""
        return self.kinds is None or any(
            recipe_id in (None, entry_recipe_id) and (reviews or event == "final")
            for entry_recipe_id, event in self.kinds
        )


def append(connection: Connection, inspections: Sequence[tuple[UUID, int]], event: Kind) -> None:
    """Add entries for inspections (id, recipe id). They get their numbers after the transaction has committed.

    Final inspections need no call: a trigger adds their entries.
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


# `settled` is the oldest transaction that was still running when the newest entry was numbered: entries of all earlier
# ones have their numbers. Starting there keeps the query fast while something (a dump, for example) holds a snapshot
# open: the rows numbered since then cannot be vacuumed, and each query would read them all. Transaction ids are
# comparable only within the database that assigned the number.
_STATUS = text(f"""
SELECT this_database.origin, latest.epoch, latest.same_database, feed_state.expired, feed_state.expired_numbered_at,
    greatest(last.number, feed_state.expired) AS newest, last.settled,
    -- The order is not needed, but makes the planner use the index.
    (SELECT true FROM feed_unnumbered WHERE transaction >= last.settled ORDER BY transaction LIMIT 1) IS NOT NULL
        AS waiting
FROM feed_state
CROSS JOIN (SELECT {_ORIGIN} AS origin) AS this_database
LEFT JOIN LATERAL (
    SELECT epoch, began_after, origin = this_database.origin AS same_database FROM feed_epochs ORDER BY id DESC LIMIT 1
) AS latest ON true
CROSS JOIN LATERAL (
    SELECT max(newest.number) AS number,
        coalesce(
            max(newest.settled) FILTER (WHERE latest.same_database AND newest.number > latest.began_after), 0
        ) AS settled
    FROM (SELECT number, settled FROM feed ORDER BY number DESC LIMIT 1) AS newest
) AS last
""")  # noqa: S608 - the expression is a constant

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


def number_entries(connection: Connection, *, at_most: int = MAX_NUMBERED_AT_ONCE) -> State:
    """Number up to `at_most` committed entries and return the range of the feed.

    Takes no lock if no entry waits for a number. Begins the new epoch of a restored database: commit before you refuse
    a cursor, or the epoch is rolled back with the transaction.
    """
    return _number(connection, at_most)[0]


def number_and_commit(connection: Connection) -> State:
    """As `number_entries`, and commit what was changed: an error later in the transaction does not undo it."""
    state, changed = _number(connection, MAX_NUMBERED_AT_ONCE)
    if changed:
        connection.commit()
    return state


def _number(connection: Connection, at_most: int) -> tuple[State, bool]:
    """Number entries. Returns the range of the feed, and whether anything was changed or locked."""
    found = connection.execute(_STATUS).one()
    changed = not found.same_database or found.waiting
    if changed:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        # Query again: the previous holder of the lock may have numbered the entries.
        found = connection.execute(_STATUS).one()
    epoch = found.epoch if found.same_database else _begin_epoch(connection, found.origin, found.newest)
    numbered = 0
    if found.waiting:
        parameters = {"settled": found.settled, "newest": found.newest, "at_most": at_most}
        numbered = connection.execute(_NUMBER, parameters).rowcount
    expired_at = _microseconds(found.expired_numbered_at) if found.expired_numbered_at is not None else 0
    return State(epoch, found.newest + numbered, found.expired, expired_at), changed


def _begin_epoch(connection: Connection, origin: str, newest: int) -> int:
    epoch = secrets.randbits(62)
    connection.execute(
        text("INSERT INTO feed_epochs (epoch, origin, began_after) VALUES (:epoch, :origin, :newest)"),
        {"epoch": epoch, "origin": origin, "newest": newest},
    )
    return epoch


def start_cursor(connection: Connection, state: State, after: str | None) -> Cursor:
    """Return the position that a client asks for.

    Args:
        after: a cursor; `now` for the end of the feed; `oldest` or None for the oldest entry that is kept.

    Raises:
        Refused: INVALID_CURSOR if the text is no cursor; CURSOR_EPOCH if the cursor is of another epoch, or a restore
            has undone its entry; CURSOR_EXPIRED if retention has removed entries after it. The last two have
            `resume_after`, the cursor to continue from.
    """
    if after is None or after == "oldest":
        return _cursor_at(connection, state, state.expired)
    if after == "now":
        return _cursor_at(connection, state, state.newest)
    return check_cursor(connection, state, Cursor.parse(after))


def check_cursor(connection: Connection, state: State, cursor: Cursor) -> Cursor:
    """Return the cursor if a reader can continue from it.

    Raises:
        Refused: CURSOR_EPOCH or CURSOR_EXPIRED, as `start_cursor` does.
    """
    if cursor.epoch != state.epoch or cursor.number > state.newest or not _has_same_entry(connection, state, cursor):
        raise Refused(
            Code.CURSOR_EPOCH,
            "The database was restored after this cursor was issued. Continue with resume_after, or without a cursor "
            "if it is null. Inspections that finished after the backup come again, with new cursors: "
            "skip the ids you have already processed.",
            resume_after=_resume_after(connection, state, cursor),
        )
    _check_kept(connection, state, cursor)
    return cursor


def _check_kept(connection: Connection, state: State, cursor: Cursor) -> None:
    if cursor.number < state.expired:
        raise Refused(
            Code.CURSOR_EXPIRED,
            f"{state.expired - cursor.number} entries after this cursor were removed, because they are older than the "
            "feed keeps. Continue with resume_after, and read the missing ones from GET /v1/inspections?since=…",
            resume_after=str(_cursor_at(connection, state, state.expired)),
        )


def _cursor_at(connection: Connection, state: State, number: int) -> Cursor:
    return Cursor(state.epoch, number, _numbered_at(connection, state, number) or 0)


def _numbered_at(connection: Connection, state: State, number: int) -> int | None:
    """Return when a number was assigned, or None if it has no entry; 0 for number 0."""
    if number == state.expired:
        return state.expired_numbered_at
    moment: dt.datetime | None = connection.execute(
        text("SELECT numbered_at FROM feed WHERE number = :number"), {"number": number}
    ).scalar()
    return None if moment is None else _microseconds(moment)


def _microseconds(moment: dt.datetime) -> int:
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def _has_same_entry(connection: Connection, state: State, cursor: Cursor) -> bool:
    """Return whether the number still has the entry that the cursor was issued for. Assumed for expired numbers."""
    return cursor.number < state.expired or _numbered_at(connection, state, cursor.number) == cursor.numbered_at


def _resume_after(connection: Connection, state: State, cursor: Cursor) -> str | None:
    """Return where a client with a cursor from before a restore continues without missing an entry.

    Returns None if it has to start from the oldest entry.
    """
    if cursor.number >= state.expired and _has_same_entry(connection, state, cursor):
        return str(_cursor_at(connection, state, cursor.number))
    # The restore has undone the entry. The cursor's epoch and the current feed are the same up to where the first
    # later epoch began.
    last_common = connection.execute(
        text("""
            SELECT min(later.began_after) FROM feed_epochs AS own
            JOIN feed_epochs AS later ON later.id > own.id WHERE own.epoch = :epoch
        """),
        {"epoch": cursor.epoch},
    ).scalar()
    if last_common is None or last_common < state.expired:
        return None
    return str(_cursor_at(connection, state, min(last_common, cursor.number)))


# One statement, so that `expired` and the entries are from the same snapshot.
_READ = """
SELECT feed_state.expired, entry.* FROM feed_state LEFT JOIN LATERAL (
    SELECT number, inspection_id, event, numbered_at FROM feed
    WHERE number > :after AND number <= :newest {filters}
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
    """Return up to `limit` entries after a cursor. If the page is not full, its next cursor is the end of the feed.

    Args:
        recipe_id: return only inspections of this recipe.
        reviews: whether to include the entries of reviews.
        from_oldest: whether the reader starts at the oldest entry, so that it loses nothing if entries expire.

    Raises:
        Refused: CURSOR_EXPIRED if entries after the cursor have expired since it was checked.
    """
    if after.number == state.newest:
        return Page([], after)
    filters = "" if reviews else "AND event = 'final'"
    parameters: dict[str, object] = {"after": after.number, "newest": state.newest, "limit": limit}
    if recipe_id is not None:
        filters += " AND recipe_id = :recipe_id"
        parameters["recipe_id"] = recipe_id
    rows = connection.execute(text(_READ.format(filters=filters)), parameters).all()
    if rows[0].expired > state.expired and not from_oldest:
        _check_kept(connection, _with_current_expiry(connection, state), after)
    entries = [
        Entry(Cursor(state.epoch, row.number, _microseconds(row.numbered_at)), row.inspection_id, row.event)
        for row in rows
        if row.number is not None
    ]
    is_last_known = bool(entries) and (len(entries) == limit or entries[-1].cursor.number == state.newest)
    return Page(entries, entries[-1].cursor if is_last_known else _cursor_at(connection, state, state.newest))


def number_and_summarise(connection: Connection, after: int) -> NewEntries:
    """Number the waiting entries, and summarise the entries after a number."""
    newest = number_entries(connection).newest
    if newest - after > MAX_SUMMARISED:
        return NewEntries(newest, None)
    rows = connection.execute(
        text("SELECT DISTINCT recipe_id, event FROM feed WHERE number > :after AND number <= :newest"),
        {"after": after, "newest": newest},
    )
    return NewEntries(newest, frozenset((row.recipe_id, row.event) for row in rows))


def _with_current_expiry(connection: Connection, state: State) -> State:
    row = connection.execute(text("SELECT expired, expired_numbered_at FROM feed_state")).one()
    return replace(state, expired=row.expired, expired_numbered_at=_microseconds(row.expired_numbered_at))


def expire(connection: Connection, *, days: int, at_most: int) -> int:
    """Remove up to `at_most` of the oldest entries numbered more than `days` ago. Returns how many."""
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
