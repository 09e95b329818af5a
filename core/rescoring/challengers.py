"""Challengers: runs that score a share of the live images, read from the feed, until somebody ends them.

Live work never waits for a challenger and does not know of it. The sample is a function of the inspection ids alone, so
it is the same after a restart, and challengers with the same share score the same inspections.
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

MAX_LAG = dt.timedelta(hours=1)
"""Inspections that became final longer ago than this are skipped, so a challenger that cannot keep up scores recent
images instead of lagging behind forever."""
FEED_ENTRIES_AT_ONCE = 20_000
"""The most feed entries that one call of `next_inspections` reads."""

_IS_CHALLENGER = (rescore_runs.c.kind == "challenger", rescore_runs.c.state.in_(ACTIVE))

# The first 32 bits of a checksum of the id are uniformly distributed, whatever the id contains. The cursor needs no
# epoch: it is stored in the same database as the feed, and restored with it.
_SAMPLED = """
FROM feed JOIN inspections AS inspection ON inspection.id = feed.inspection_id
WHERE feed.recipe_id = :recipe_id AND feed.number > :after AND feed.number <= :until
    AND feed.event = 'final' AND inspection.status = 'completed'
    AND CAST(CAST('x' || left(md5(CAST(feed.inspection_id AS text)), 8) AS bit(32)) AS bigint) < :share * 4294967296.0
"""
_SAMPLE = text(f"SELECT feed.number, feed.inspection_id {_SAMPLED} ORDER BY feed.number LIMIT :at_most")
_SAMPLE_SIZE = text(f"SELECT count(*) {_SAMPLED}")
_NEWEST_TOO_OLD = text("""
SELECT max(number) FROM feed
WHERE number > :after AND number <= :until AND numbered_at < clock_timestamp() - CAST(:max_lag AS interval)
""")


def create(connection: Connection, recipe: str, version: int, *, share: float, actor: str) -> Run:
    """Start a challenger of the active version.

    Refuses a version that is not ready, the active version, and a second challenger of a recipe.

    Args:
        share: of the live images, above 0 and up to 1.
    """
    owner = recipes.lock(connection, recipe)
    challenger = runs.ready_version(connection, recipe, version)
    if challenger.id == owner.active_version_id:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Version {version} of recipe {recipe!r} is the active version and cannot challenge itself.",
        )
    if find(connection, recipe) is not None:
        raise Refused(Code.CHALLENGER_EXISTS, f"Recipe {recipe!r} already has a challenger. End it first.")
    run_id = connection.execute(
        insert(rescore_runs)
        .values(
            recipe_id=owner.id,
            model_version_id=challenger.id,
            kind="challenger",
            source={"live": {"share": share}},
            cursor={"feed": feed.number_entries(connection).newest},
            limits=RunThresholds.in_force(connection, challenger.id).to_json(),
            max_failure_rate=1.0,
            actor=actor,
        )
        .returning(rescore_runs.c.id)
    ).scalar_one()
    runs.record(connection, run_id, "challenger.started", actor, recipe=recipe, version=version, share=share)
    return runs.get(connection, run_id)


def find(connection: Connection, recipe: str) -> Run | None:
    """Return the challenger of a recipe, or None if it has none."""
    found = runs.matching(connection, recipes_table.c.name == recipe, *_IS_CHALLENGER)
    return found[0] if found else None


def get(connection: Connection, recipe: str) -> Run:
    """Return the challenger of a recipe. Refuses an unknown recipe, and a recipe without a challenger."""
    challenger = find(connection, recipe)
    if challenger is None:
        recipes.get(connection, recipe)
        raise Refused(Code.NOT_FOUND, f"Recipe {recipe!r} has no challenger.")
    return challenger


def all_by_recipe_id(connection: Connection) -> dict[int, Run]:
    """Return all challengers, by the id of their recipe."""
    return {run.recipe_id: run for run in runs.matching(connection, *_IS_CHALLENGER)}


def end(connection: Connection, recipe: str, *, actor: str) -> Run:
    """End a challenger: it scores the images that are planned and takes no more. Refuses a recipe without one."""
    challenger = get(connection, recipe)
    connection.execute(
        text("""
            UPDATE rescore_runs SET planned_all_at = now(), total = planned, state = 'running',
                started_at = coalesce(started_at, now())
            WHERE id = :id AND state IN ('queued', 'running', 'paused')
        """),
        {"id": challenger.id},
    )
    runs.record(connection, challenger.id, "challenger.ended", actor, recipe=recipe)
    runs.end_if_done(connection, challenger.id)
    return runs.get(connection, challenger.id)


def end_of_active(connection: Connection, recipe: str, version_id: int, *, actor: str) -> None:
    """End the challenger of a recipe if it is this version, which has just become the active one."""
    challenger = find(connection, recipe)
    if challenger is not None and challenger.model_version_id == version_id:
        end(connection, recipe, actor=actor)


def next_inspections(
    connection: Connection, run: Run, cursor: dict[str, Any], at_most: int
) -> tuple[list[UUID], dict[str, Any], bool]:
    """Return the next inspections for a challenger to score, in the order in which they became final.

    Inspections older than `MAX_LAG` are skipped and counted in the run, so store the new cursor in the same
    transaction. If retention has removed entries, the oldest remaining entry comes next.

    Args:
        cursor: `{"feed": n}`; feed entries up to number n are done.
        at_most: how many inspections to return.

    Returns:
        The inspection ids, the cursor after them, and whether there may be more now.
    """
    state = feed.number_entries(connection)
    after = max(int(cursor["feed"]), state.expired)
    share = float(run.source["live"]["share"])
    until = min(
        state.newest, after + min(FEED_ENTRIES_AT_ONCE, math.ceil(2 * at_most / share))
    )  # about twice as many entries as needed
    sampled: dict[str, Any] = {"recipe_id": run.recipe_id, "share": share, "until": until}
    newest_too_old = connection.execute(
        _NEWEST_TOO_OLD, {"after": after, "until": until, "max_lag": MAX_LAG}
    ).scalar_one()
    if newest_too_old is not None:
        _count_skipped(connection, run, {**sampled, "after": after, "until": newest_too_old})
        after = newest_too_old
    rows: list[Row[Any]] = list(connection.execute(_SAMPLE, {**sampled, "after": after, "at_most": at_most}))
    position = rows[-1].number if len(rows) == at_most else until
    return [row.inspection_id for row in rows], {"feed": position}, position < state.newest


def _count_skipped(connection: Connection, run: Run, sampled: dict[str, Any]) -> None:
    skipped = connection.execute(_SAMPLE_SIZE, sampled).scalar_one()
    connection.execute(
        text("UPDATE rescore_runs SET skipped = skipped + :number WHERE id = :id"), {"id": run.id, "number": skipped}
    )
