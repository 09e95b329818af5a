"""Statistics of inspections by recipe and time. Every number equals what a listing with the same filters counts."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, func, select, text

from core.errors import Code, Refused
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.models import recipes
from core.models.verdicts import Verdict
from core.statistics import counting, durations, queries
from core.statistics.counting import CELL
from core.statistics.queries import Query
from core.tables import inspections as table

HOUR: Final = dt.timedelta(hours=1)
MAX_PERIOD = dt.timedelta(days=92)
MAX_UNCOUNTED_PERIOD = dt.timedelta(hours=12)
"""The longest period with edges between the periods of the counts: every inspection in it is read."""
MAX_FIGURES = 20_000
"""The largest number of recipes times buckets."""
MAX_WAITING = 10_000
"""Further inspections that await a review are not counted."""


@dataclass
class Figures:
    """The figures of the inspections of a recipe that were accepted in a period.

    Attributes:
        hours: length of the period up to now.
        statuses: number of inspections by status, also of those in flight.
        verdicts: number of completed inspections by the machine's verdict.
        effective_verdicts: number of inspections by the verdict of the newest review, or else the machine's.
        duration_bins: number of completed inspections by the bin of their time to verdict.
    """

    hours: float
    statuses: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    effective_verdicts: Counter[Verdict] = field(default_factory=Counter)
    duration_bins: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.statuses.total()

    @property
    def ng_rate(self) -> float | None:
        """The share of the completed inspections that are `ng` by the machine's verdict; None if none is completed."""
        completed = self.statuses["completed"]
        return self.verdicts["ng"] / completed if completed else None

    @property
    def per_hour(self) -> float | None:
        """Inspections accepted per hour; None for a period in the future."""
        return self.total / self.hours if self.hours > 0 else None

    def time_to_verdict(self, share: float) -> float | None:
        """Return a quantile of the times from acceptance to verdict, see `core.statistics.durations.quantile`."""
        return durations.quantile(self.duration_bins, share)

    def count(self, status: str, verdict: Verdict | None, duration_bin: int | None, number: int) -> None:
        """Count inspections that have all this in common."""
        self.statuses[status] += number
        if verdict is not None:
            self.verdicts[verdict] += number
            self.effective_verdicts[verdict] += number
        if duration_bin is not None:
            self.duration_bins[duration_bin] += number

    def overrule(self, verdict: Verdict | None, reviewed: Verdict, number: int) -> None:
        """Count reviews that overrule the machine's verdict; None if it has none."""
        self.effective_verdicts[reviewed] += number
        if verdict is not None:
            self.effective_verdicts[verdict] -= number

    def add(self, other: "Figures") -> None:
        """Add the counts of another period."""
        self.statuses.update(other.statuses)
        self.verdicts.update(other.verdicts)
        self.effective_verdicts.update(other.effective_verdicts)
        self.duration_bins.update(other.duration_bins)


@dataclass(frozen=True)
class RecipeStatistics:
    """The statistics of a recipe.

    Attributes:
        totals: of the whole period.
        buckets: one for each bucket of the query, in order.
        waiting_for_review: inspections whose effective verdict is `review`, whenever they were accepted; at most
            `MAX_WAITING` + 1, which means more.
        last_ng: the newest inspection of the period that is `ng` by the machine's verdict.
    """

    recipe: str
    totals: Figures
    buckets: list[Figures]
    waiting_for_review: int
    last_ng: UUID | None


def read(
    connection: Connection,
    *,
    recipe: str | None,
    line_id: str | None,
    station_id: str | None,
    edges: Sequence[dt.datetime],
) -> list[RecipeStatistics]:
    """Return the statistics of one recipe or of all, by name.

    Args:
        connection: in a transaction with one snapshot (repeatable read). Otherwise an inspection that becomes final
            meanwhile may be counted twice or not at all.
        edges: of the buckets, in UTC, ascending, at least two; see `core.statistics.buckets.find_edges`.

    Raises:
        Refused: RECIPE_UNKNOWN; INVALID_FIELD if the period is too long, or has too many buckets.
    """
    listed = recipes.list_all(connection) if recipe is None else [recipes.get(connection, recipe)]
    query = Query([each.id for each in listed], line_id, station_id, edges)
    _check(query)
    figures = _read_figures(connection, query)
    newest_ng = {
        row.recipe_id: row.id for row in connection.execute(text(queries.newest_ng(query)), query.parameters())
    }
    return [
        RecipeStatistics(
            recipe=each.name,
            totals=_total(figures[each.id]),
            buckets=figures[each.id],
            waiting_for_review=_count_waiting(connection, each.name, line_id, station_id),
            last_ng=newest_ng.get(each.id),
        )
        for each in listed
    ]


def _check(query: Query) -> None:
    period = query.until - query.since
    if period > MAX_PERIOD:
        raise Refused(Code.INVALID_FIELD, f"since: statistics are for at most {MAX_PERIOD.days} days.")
    if not query.fits_counts and period > MAX_UNCOUNTED_PERIOD:
        raise Refused(
            Code.INVALID_FIELD,
            f"bucket: for more than {MAX_UNCOUNTED_PERIOD // HOUR} hours, use a multiple of {CELL.seconds} seconds.",
        )
    if len(query.recipe_ids) * (len(query.edges) - 1) > MAX_FIGURES:
        raise Refused(
            Code.INVALID_FIELD,
            f"bucket: more than {MAX_FIGURES} for {len(query.recipe_ids)} recipes; use longer ones, or name a recipe.",
        )


def _read_figures(connection: Connection, query: Query) -> dict[int, list[Figures]]:
    """Return the figures of each bucket, by the id of the recipe."""
    now: dt.datetime = connection.execute(text("SELECT now()")).scalar_one()
    figures = {
        recipe_id: [Figures(_hours(begin, end, now)) for begin, end in pairwise(query.edges)]
        for recipe_id in query.recipe_ids
    }
    statement, parameters = queries.counts(query, counting.read_state(connection))
    for row in connection.execute(text(statement), parameters):
        figures[row.recipe_id][row.bucket - 1].count(row.status, row.verdict, row.duration_bin, row.number)
    for row in connection.execute(queries.reviewed(query)):
        figures[row.recipe_id][row.bucket - 1].overrule(row.verdict, row.reviewed, row.number)
    return figures


def _hours(begin: dt.datetime, end: dt.datetime, now: dt.datetime) -> float:
    return max((min(end, now) - begin) / HOUR, 0.0)


def _total(buckets: Sequence[Figures]) -> Figures:
    total = Figures(sum(figures.hours for figures in buckets))
    for figures in buckets:
        total.add(figures)
    return total


def _count_waiting(connection: Connection, recipe: str, line_id: str | None, station_id: str | None) -> int:
    """Count the inspections whose effective verdict is `review`, up to one more than `MAX_WAITING`."""
    filters = Filters(recipe=recipe, line_id=line_id, station_id=station_id, effective_verdict="review")
    conditions = inspections.conditions(connection, filters, table)
    waiting = select(table.c.id).where(*conditions).limit(MAX_WAITING + 1).subquery()
    return connection.execute(select(func.count()).select_from(waiting)).scalar_one()
