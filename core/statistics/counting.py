"""Counts final inspections by quarter of an hour, so that statistics need not read every inspection.

The counts and the position in the feed up to which they go change in one transaction, so each inspection is counted
once, however late it became final. A reader adds what is in the feed behind the position, so figures are exact at any
time. Inspections that were final before counting began are counted backwards in time, some at once.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from core.inspection.id_ranges import just_after, just_before
from core.statistics.durations import BIN_SQL

CELL: Final = dt.timedelta(minutes=15)
"""The period of a count, by the time of acceptance. The offset of every time zone is a multiple of it."""
ENTRIES_AT_ONCE = 10_000
BACKWARDS_AT_ONCE = 50_000
"""About how many earlier inspections are counted at once; at least those of one period."""
ALWAYS: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NEVER: Final = dt.datetime(2200, 1, 1, tzinfo=dt.UTC)

KEY = "recipe_id, line_id, station_id, status, verdict, duration_bin"
"""What inspections are counted by, besides the time."""
KEY_OF_INSPECTION = f"recipe_id, line_id, station_id, status, verdict, {BIN_SQL} AS duration_bin"
UNCOUNTED = """(
    SELECT inspection_id FROM feed WHERE number > :position AND event = 'final'
    UNION ALL SELECT inspection_id FROM feed_unnumbered WHERE event = 'final'
) AS uncounted"""
"""The inspections that became final and are not counted yet."""

_INSERT = f"""
INSERT INTO inspection_counts (begins_at, {KEY}, number)
SELECT date_bin('{CELL.seconds} seconds', created_at, '1970-01-01Z') AS begins_at, {KEY}, count(*)
FROM (SELECT {KEY_OF_INSPECTION}, created_at FROM inspections WHERE {{which}}) AS final
GROUP BY begins_at, {KEY}
ON CONFLICT (begins_at, {KEY}) DO UPDATE SET number = inspection_counts.number + excluded.number
"""  # noqa: S608 - the expressions are constants
_COUNT_ENTRIES = text(
    _INSERT.format(
        which="""created_at >= :complete_from AND id IN (
            SELECT inspection_id FROM feed WHERE number > :position AND number <= :until AND event = 'final'
        )"""
    )
)
_COUNT_PERIOD = text(
    _INSERT.format(
        which=f"""created_at >= :since AND created_at < :until AND id >= :first AND id < :last
            AND NOT EXISTS (SELECT FROM {UNCOUNTED} WHERE uncounted.inspection_id = inspections.id)"""
    )
)
_EARLIER = text("""
    SELECT created_at FROM inspections WHERE id < :last AND created_at < :until
    ORDER BY id DESC OFFSET :skipped LIMIT 1
""")
_STATE = text("""
    SELECT position, complete_from, expired, greatest(expired, (SELECT max(number) FROM feed)) AS newest
    FROM inspection_counts_state, feed_state
    FOR NO KEY UPDATE OF inspection_counts_state SKIP LOCKED
""")


@dataclass(frozen=True)
class State:
    """How far the inspections are counted.

    Attributes:
        position: the number of the last entry of the feed that is counted.
        complete_from: inspections accepted from here on are counted if they became final up to `position`; None if
            none are.
    """

    position: int
    complete_from: dt.datetime | None


def read_state(connection: Connection) -> State:
    """Return how far the inspections are counted; not at all once entries that were not counted have expired."""
    row = connection.execute(
        text("SELECT position, complete_from, expired FROM inspection_counts_state, feed_state")
    ).one()
    return State(row.position, row.complete_from if row.position >= row.expired else None)


def count_more(connection: Connection) -> bool:
    """Count up to `ENTRIES_AT_ONCE` entries of the feed, and about `BACKWARDS_AT_ONCE` earlier inspections if any.

    Returns whether there may be more to count. Does nothing while another process counts; then there may be.
    """
    row = connection.execute(_STATE).one_or_none()
    if row is None:
        return True
    before = State(row.position, row.complete_from)
    if row.position < row.expired:  # retention has removed entries that were not counted: begin anew
        connection.execute(text("TRUNCATE inspection_counts"))
        state = State(row.newest, None)
    else:
        state = _count_entries(connection, before, newest=row.newest)
    if state.complete_from != ALWAYS:
        state = _count_backwards(connection, state)
    if state != before:
        connection.execute(
            text("UPDATE inspection_counts_state SET position = :position, complete_from = :complete_from"),
            {"position": state.position, "complete_from": state.complete_from},
        )
    return state != before


def _count_entries(connection: Connection, state: State, *, newest: int) -> State:
    until = min(newest, state.position + ENTRIES_AT_ONCE)
    if state.complete_from is not None and until > state.position:
        connection.execute(
            _COUNT_ENTRIES, {"position": state.position, "until": until, "complete_from": state.complete_from}
        )
    return State(until, state.complete_from)


def _count_backwards(connection: Connection, state: State) -> State:
    """Count the newest of the inspections that were accepted before the complete time, by whole periods."""
    until = state.complete_from or _NEVER
    last = just_after(until)
    earlier = {"until": until, "last": last}
    newest = connection.execute(_EARLIER, {**earlier, "skipped": 0}).scalar()
    remaining = connection.execute(_EARLIER, {**earlier, "skipped": BACKWARDS_AT_ONCE}).scalar()
    since = ALWAYS
    if newest is not None and remaining is not None:
        since = min(ceil(remaining), floor(newest))
    if newest is not None:
        period = {"since": since, "first": just_before(since), **earlier}
        connection.execute(_COUNT_PERIOD, {**period, "position": state.position})
    return State(state.position, since)


def floor(moment: dt.datetime) -> dt.datetime:
    """Return the beginning of the period of a count that a moment is in."""
    return moment - (moment - ALWAYS) % CELL


def ceil(moment: dt.datetime) -> dt.datetime:
    """Return the end of the period of a count that a moment is in, or the moment if it is the beginning of one."""
    return moment + (ALWAYS - moment) % CELL
