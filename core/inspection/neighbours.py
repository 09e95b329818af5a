"""The inspections before and after one in a listing, for the next and previous key of a viewer."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Table, select

from core.inspection import inspections
from core.inspection.inspections import Filters
from core.models import recipes
from core.tables import inspections as finished
from core.tables import work

SEARCHED = 10_000
"""Inspections on each side that are searched. It limits the cost if few of them pass the filters."""

_INDEXED = ("part_id", "batch_id", "lot_id", "station_id", "line_id")
"""The filters with an index of their own, from the narrowest to the widest; then comes the recipe."""


@dataclass(frozen=True)
class Neighbours:
    """The ids of the nearest inspections that pass the filters; None at the end of the listing.

    Attributes:
        newer: accepted after the inspection; it comes before it in the listing.
        older: accepted before the inspection.
    """

    newer: UUID | None
    older: UUID | None


def find(connection: Connection, inspection_id: UUID, filters: Filters) -> Neighbours:
    """Find the neighbours of an inspection, which need not pass the filters itself.

    Of the inspections that have the narrowest of the indexed filters, `SEARCHED` on each side are searched.

    Raises:
        Refused: NOT_FOUND; RECIPE_UNKNOWN.
    """
    inspections.get(connection, inspection_id)
    both = [_nearest(connection, table, inspection_id, filters) for table in (work, finished)]
    return Neighbours(
        newer=min((newer for newer, _ in both if newer is not None), default=None),
        older=max((older for _, older in both if older is not None), default=None),
    )


def _nearest(
    connection: Connection, table: Table, inspection_id: UUID, filters: Filters
) -> tuple[UUID | None, UUID | None]:
    """Return the nearest newer and the nearest older inspection of a table."""
    conditions = inspections.conditions(connection, filters, table)
    narrowest = _narrowest(connection, filters, table)
    newer, older = (table.c.id > inspection_id, table.c.id), (table.c.id < inspection_id, table.c.id.desc())
    nearest = []
    for beyond, order in (newer, older):
        searched = select(table.c.id).where(beyond, *narrowest).order_by(order)
        last = connection.execute(searched.offset(SEARCHED - 1).limit(1)).scalar()
        within = [] if last is None else [table.c.id.between(*sorted((inspection_id, last)))]
        found = select(table.c.id).where(beyond, *within, *conditions).order_by(order).limit(1)
        nearest.append(connection.execute(found).scalar())
    return nearest[0], nearest[1]


def _narrowest(connection: Connection, filters: Filters, table: Table) -> list[ColumnElement[bool]]:
    """Return the condition of the narrowest filter that has an index, if there is one."""
    for name in _INDEXED:
        if (value := getattr(filters, name)) is not None:
            return [table.c[name] == value]
    return [] if filters.recipe is None else [table.c.recipe_id == recipes.get(connection, filters.recipe).id]
