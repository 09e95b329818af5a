"""Delete the inspections that end in months that cannot be removed as a whole, because others in them are kept."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.retention import months
from core.retention.removals import Removal, Scope, Step, make_due
from core.retention.rules import HELD

ROWS_AT_ONCE = 2000
PIECES = 25
"""The most pieces of one recipe in a round."""

_PIECE = text(f"""
    SELECT id, batch_id, image_day FROM inspections AS inspection
    WHERE recipe_id = :recipe_id AND id < :before AND id > :after AND NOT {HELD} ORDER BY id LIMIT :at_most
""")  # noqa: S608 - all parts are constants


def remove(scope: Scope) -> Iterator[Step]:
    """Delete the inspections whose time has ended, recipe by recipe, in steps."""
    with scope.engine.begin() as connection:
        rules = scope.rules(connection)
        droppable = [month for month in months.existing(connection) if months.may_end(connection, month, rules)]
    if droppable:  # a lock keeps them; do not delete millions of rows that will go with their table
        return
    for recipe_id, recipe in rules.recipes.items():
        if recipe.rows_before is not None and recipe_id not in rules.busy:
            yield from _remove_of_recipe(scope, recipe_id)


def _remove_of_recipe(scope: Scope, recipe_id: int) -> Iterator[Step]:
    after = UUID(int=0)
    for _ in range(PIECES):
        with scope.deciding() as (connection, rules):
            recipe = rules.recipes.get(recipe_id)
            if recipe is None or recipe.rows_before is None or recipe_id in rules.busy:
                return
            own = {"recipe_id": recipe_id, "before": recipe.rows_before, "after": after, "at_most": ROWS_AT_ONCE}
            ended = connection.execute(_PIECE, rules.parameters | own).all()
            _delete(connection, ended)
            make_due(connection, {row.image_day for row in ended}, scope.today)
        yield [Removal(recipe_id, "inspections", len(ended), 0)] if ended else []
        if len(ended) < ROWS_AT_ONCE:
            return
        after = ended[-1].id


def _delete(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    own = {"ids": [row.id for row in rows]}
    connection.execute(text("DELETE FROM inspections WHERE id = ANY(:ids)"), own)
    connection.execute(text("DELETE FROM review_queue WHERE inspection_id = ANY(:ids)"), own)
    months.delete_reviews(connection, own["ids"])
    months.delete_empty_batches(connection, list({row.batch_id for row in rows} - {None}))
