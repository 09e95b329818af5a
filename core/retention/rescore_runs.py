"""Delete re-scoring runs that ended as long ago as the inspections of their recipe are kept, with their results."""

import datetime as dt
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from core.retention.removals import Removal, Scope, Step
from core.retention.rules import Rules, first_id_of_day

RESULTS_AT_ONCE = 5000

_ENDED = text("""
    SELECT id FROM rescore_runs
    WHERE recipe_id = :recipe_id AND id < :before AND state IN ('completed', 'failed', 'cancelled')
      AND finished_at < CAST(:day AS date)
    ORDER BY id
""")
_DELETE_RESULTS = text("""
    DELETE FROM rescore_results WHERE run_id = :id AND number IN (
        SELECT number FROM rescore_results WHERE run_id = :id ORDER BY number LIMIT :at_most
    )
""")


def remove(scope: Scope) -> Iterator[Step]:
    """Delete the runs whose time has ended, in steps."""
    with scope.engine.begin() as connection:
        runs = ended(connection, scope.rules(connection))
    for recipe_id, run_id in runs:
        yield from _remove_run(scope, recipe_id, run_id)


def ended(connection: Connection, rules: Rules) -> list[tuple[int, UUID]]:
    """Return the recipes and ids of the runs whose time has ended."""
    return [
        (recipe.recipe_id, run_id)
        for recipe in rules.recipes.values()
        if recipe.ended_before is not None
        for run_id in connection.execute(_ENDED, _parameters(recipe.recipe_id, recipe.ended_before)).scalars()
    ]


def _parameters(recipe_id: int, day: dt.date) -> dict[str, Any]:
    return {"recipe_id": recipe_id, "before": first_id_of_day(day), "day": day}


def _remove_run(scope: Scope, recipe_id: int, run_id: UUID) -> Iterator[Step]:
    deleted = RESULTS_AT_ONCE
    while deleted == RESULTS_AT_ONCE:
        with scope.engine.begin() as connection:
            deleted = connection.execute(_DELETE_RESULTS, {"id": run_id, "at_most": RESULTS_AT_ONCE}).rowcount
        yield []
    with scope.engine.begin() as connection:
        connection.execute(text("DELETE FROM rescore_runs WHERE id = :id"), {"id": run_id})
    yield [Removal(recipe_id, "re-scoring runs", 1, 0)]
