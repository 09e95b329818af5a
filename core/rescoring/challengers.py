"""Challengers: runs over a share of what is inspected from now on, read from the feed, until they are ended.

The line itself knows nothing of a challenger, so it costs the line nothing. Which inspections are in the sample follows
from their ids alone: one is in it or not, however often it is asked, and challengers of the same share score the same.
"""

import datetime as dt
import math
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, insert, text

from core.errors import Code, Refused
from core.feed import feed
from core.models import recipes
from core.rescoring import runs
from core.rescoring.run_thresholds import RunThresholds
from core.rescoring.runs import ACTIVE, Run
from core.rescoring.tables import rescore_runs
from core.tables import recipes as recipes_table

LATEST = dt.timedelta(hours=1)
"""What became final longer ago than this is skipped: a challenger that cannot keep up shows what the line is like now,
and does not lag behind it for ever."""
READ_AT_ONCE = 20_000
"""Places of the feed that one look covers, at most."""

_CHALLENGING = (rescore_runs.c.kind == "challenger", rescore_runs.c.state.in_(ACTIVE))

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


def create(connection: Connection, recipe: str, version: int, *, share: float, actor: str) -> Run:
    """Let a version challenge the active one; `share` is above 0 and up to 1.

    Refuses a version that is not ready, the active one, and a second challenger of a recipe.
    """
    owner = recipes.lock(connection, recipe)
    wanted = runs.ready_version(connection, recipe, version)
    if wanted.id == owner.active_version_id:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Version {version} of recipe {recipe!r} is the active one: it cannot challenge itself.",
        )
    if of_recipe(connection, recipe) is not None:
        raise Refused(Code.CHALLENGER_EXISTS, f"Recipe {recipe!r} has a challenger already: end that one first.")
    made = connection.execute(
        insert(rescore_runs)
        .values(
            recipe_id=owner.id,
            model_version_id=wanted.id,
            kind="challenger",
            source={"live": {"share": share}},
            cursor={"feed": feed.number_entries(connection).newest},
            limits=RunThresholds.in_force(connection, wanted.id).stored(),
            max_failure_rate=1.0,
            actor=actor,
        )
        .returning(rescore_runs.c.id)
    ).scalar_one()
    runs.record(connection, made, "challenger.started", actor, recipe=recipe, version=version, share=share)
    return runs.get(connection, made)


def of_recipe(connection: Connection, recipe: str) -> Run | None:
    """The challenger of a recipe, where it has one."""
    found = runs.matching(connection, recipes_table.c.name == recipe, *_CHALLENGING)
    return found[0] if found else None


def get(connection: Connection, recipe: str) -> Run:
    """The challenger of a recipe; refuses an unknown recipe, and one that has none."""
    found = of_recipe(connection, recipe)
    if found is None:
        recipes.get(connection, recipe)
        raise Refused(Code.NOT_FOUND, f"Recipe {recipe!r} has no challenger.")
    return found


def by_recipe(connection: Connection) -> dict[int, Run]:
    """Those of all recipes that have one, by the recipe's id."""
    return {run.recipe_id: run for run in runs.matching(connection, *_CHALLENGING)}


def end(connection: Connection, recipe: str, *, actor: str) -> Run:
    """Let a challenger finish what it has in hand and take nothing more; refuses where there is none."""
    found = get(connection, recipe)
    connection.execute(
        text("""
            UPDATE rescore_runs SET planned_all_at = now(), total = planned, state = 'running',
                started_at = coalesce(started_at, now())
            WHERE id = :id AND state IN ('queued', 'running', 'paused')
        """),
        {"id": found.id},
    )
    runs.record(connection, found.id, "challenger.ended", actor, recipe=recipe)
    runs.end_if_done(connection, found.id)
    return runs.get(connection, found.id)


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
        Up to that many inspection ids, the cursor after them, and whether there may be more now.
    """
    state = feed.number_entries(connection)
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
