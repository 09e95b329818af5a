"""Rounds of retention: what would be removed now, and removing it in steps."""

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, text

from core.retention import bundles, images, months, rescore_runs, rows
from core.retention.months import Month
from core.retention.removals import Removal, Scope, Step
from core.retention.rules import HELD, Rules
from core.storage.image_store import Store


def steps(scope: Scope, store: Store) -> Iterator[Step]:
    """Remove what has ended. A round may stop after any step; the next round continues.

    Inspections go first, because images go with them; the images of retired versions go in the next round.
    """
    yield from months.remove(scope)
    yield from rows.remove(scope)
    yield from rescore_runs.remove(scope)
    yield from images.remove(scope, store)
    yield from bundles.remove(scope, store)


def totals(removals: Iterable[Removal]) -> list[Removal]:
    """Add up removals by kind and recipe."""
    sums: dict[tuple[str, int | None], Removal] = {}
    for one in removals:
        before = sums.get((one.kind, one.recipe_id), Removal(one.recipe_id, one.kind, 0, 0))
        sums[one.kind, one.recipe_id] = Removal(
            one.recipe_id, one.kind, before.number + one.number, before.bytes + one.bytes
        )
    return [sums[key] for key in sorted(sums, key=lambda key: (key[0], key[1] or 0))]


def plan(scope: Scope, store: Store) -> Iterator[Removal]:
    """Count what `steps` would remove now. Reads the months and days that may have something to remove."""
    with scope.engine.begin() as connection:
        rules = scope.rules(connection)
        existing = months.existing(connection)
        yield from _count_rows(connection, rules, "inspections_default", None)
    for month in existing:
        with scope.engine.begin() as connection:
            yield from _count_rows(connection, rules, month.table, month)
    with scope.engine.begin() as connection:
        for recipe_id, _ in rescore_runs.ended(connection, rules):
            yield Removal(recipe_id, "re-scoring runs", 1, 0)
        days = images.due_days(connection, rules)
    for day in days:
        with scope.engine.begin() as connection:
            yield from images.count_removable(connection, rules, day)
    yield from bundles.plan(scope, store)


def _count_rows(connection: Connection, rules: Rules, table: str, month: Month | None) -> Iterator[Removal]:
    """Count the inspections of a partition that would go. Only one that goes as a whole frees its disk space."""
    ends = {recipe.recipe_id: recipe.rows_before for recipe in rules.recipes.values() if recipe.rows_before is not None}
    removals = []
    for recipe_id, before in ends.items():
        if recipe_id in rules.busy or (month is not None and before <= month.first_id):
            continue
        number = connection.execute(
            text(f"""
                SELECT count(*) FROM {table} AS inspection
                WHERE recipe_id = :recipe_id AND id < :before AND NOT {HELD}
            """),  # noqa: S608 - constants, and the name of a table
            rules.parameters | {"recipe_id": recipe_id, "before": before},
        ).scalar_one()
        removals += [Removal(recipe_id, "inspections", number, 0)] if number else []
    if month is not None and months.may_end(connection, month, rules):
        yield from months.shared(removals, months.size_of(connection, month))
    else:
        yield from removals
