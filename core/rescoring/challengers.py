"""What a challenger scores: a share of what is inspected, read from the feed.

The line itself knows nothing of a challenger, so it costs the line nothing. Which inspections are in the sample follows
from their ids alone: one is in it or not, however often it is asked, and challengers of the same share score the same.
"""

import datetime as dt
import math
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core import feed
from core.rescoring.runs import Run

LATEST = dt.timedelta(hours=1)
"""What became final longer ago than this is skipped: a challenger that cannot keep up shows what the line is like now,
and does not lag behind it for ever."""
READ_AT_ONCE = 20_000
"""Places of the feed that one look covers, at most."""

# The first 32 bits of a checksum of the id are uniform, whatever the id holds. The cursor needs no epoch: it lies in
# the database whose feed it means, and is restored with it.
_SAMPLED = """
FROM feed JOIN inspections AS seen ON seen.id = feed.inspection_id
WHERE feed.recipe_id = :recipe_id AND feed.number > :after AND feed.number <= :until
    AND feed.event = 'final' AND seen.status = 'completed'
    AND CAST(CAST('x' || left(md5(CAST(feed.inspection_id AS text)), 8) AS bit(32)) AS bigint) < :share * 4294967296.0
"""
_ITEMS = text(f"SELECT feed.number, feed.inspection_id {_SAMPLED} ORDER BY feed.number LIMIT :at_most")
_COUNT = text(f"SELECT count(*) {_SAMPLED}")
_LATE = text("""
SELECT max(number) FROM feed
WHERE number > :after AND number <= :until AND numbered_at < clock_timestamp() - CAST(:latest AS interval)
""")


def next_items(
    connection: Connection, run: Run, cursor: dict[str, Any], at_most: int
) -> tuple[list[UUID], dict[str, Any], bool]:
    """The next inspections that a challenger is to score, in the order in which they became final.

    What is older than `LATEST` is passed over and counted in the run as skipped, so the transaction must be the one
    that keeps the new cursor. Where retention has removed entries it goes on at the oldest one kept.

    Args:
        cursor: `{"feed": n}`: what has this number or a smaller one is done with.
        at_most: how many to return.

    Returns:
        The ids of inspections, at most so many; the cursor behind them; and whether there may be more now.
    """
    state = feed.number(connection)
    after = max(int(cursor["feed"]), state.expired)
    share = float(run.source["live"]["share"])
    until = min(state.newest, after + min(READ_AT_ONCE, math.ceil(2 * at_most / share)))  # twice what is needed or so
    sampled: dict[str, Any] = {"recipe_id": run.recipe_id, "share": share, "until": until}
    late = connection.execute(_LATE, {"after": after, "until": until, "latest": LATEST}).scalar_one()
    if late is not None:
        _count_skipped(connection, run, {**sampled, "after": after, "until": late})
        after = late
    rows: list[Row[Any]] = list(connection.execute(_ITEMS, {**sampled, "after": after, "at_most": at_most}))
    place = rows[-1].number if len(rows) == at_most else until
    return [row.inspection_id for row in rows], {"feed": place}, place < state.newest


def _count_skipped(connection: Connection, run: Run, sampled: dict[str, Any]) -> None:
    skipped = connection.execute(_COUNT, sampled).scalar_one()
    connection.execute(
        text("UPDATE rescore_runs SET skipped = skipped + :number WHERE id = :id"), {"id": run.id, "number": skipped}
    )
