"""Stored inspections as the source of a run: count them, compare their stored scores, and list those to score.

All three read the source page by page, in the order of the ids, so a statement costs the same whatever the size of the
archive. Inspections that were accepted after the run was created are not in its source.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Select,
    Uuid,
    and_,
    any_,
    case,
    func,
    insert,
    literal,
    select,
    true,
)

from core.inspection import inspections
from core.models.thresholds import verdict_sql
from core.rescoring import runs
from core.rescoring.requests import Where
from core.rescoring.run_thresholds import RunThreshold
from core.rescoring.runs import Run
from core.rescoring.tables import rescore_results
from core.tables import images
from core.tables import inspections as table

COUNTED_AT_ONCE = 100_000
COMPARED_AT_ONCE = 20_000


@dataclass(frozen=True)
class StoredSource:
    """The stored inspections of a recipe that match filters and were accepted before a run was created."""

    recipe: str
    where: Where
    created_at: dt.datetime

    @classmethod
    def of_run(cls, run: Run) -> Self:
        return cls(run.recipe, Where.model_validate(run.source["where"]), run.created_at)

    def select_ids(self, connection: Connection, after: UUID | None) -> Select[Any]:
        """Select the ids after `after`, in their order."""
        filters = self.where.filters(self.recipe)
        until = min(filters.until or self.created_at, self.created_at)
        conditions = inspections.conditions(connection, replace(filters, until=until), table)
        if self.where.ids is not None:
            conditions.append(table.c.id == any_(literal(self.where.ids, ARRAY(Uuid))))
        query = select(table.c.id).where(*conditions).order_by(table.c.id)
        return query if after is None else query.where(table.c.id > after)


@dataclass(frozen=True)
class CountedPage:
    """The number of inspections on a page of the source, and the last of them, or None at the end of the source."""

    inspections: int
    last: UUID | None


def count_page(
    connection: Connection, source: StoredSource, after: UUID | None, *, at_most: int = COUNTED_AT_ONCE
) -> CountedPage:
    """Count the inspections on the next page of the source."""
    page = source.select_ids(connection, after).limit(at_most).cte("page")
    last = select(page.c.id).order_by(page.c.id.desc()).limit(1).scalar_subquery()
    row = connection.execute(select(func.count(), last).select_from(page)).one()
    return CountedPage(row[0], row[1] if row[0] == at_most else None)


def is_scored_by_version_of(run: Run) -> ColumnElement[bool]:
    """Whether the run's version has scored an inspection, so that the stored score can be compared."""
    return and_(table.c.model_version_id == run.model_version_id, table.c.status == "completed")


@dataclass(frozen=True)
class ComparedPage:
    """The last inspection of a compared page, or None at the end of the source, and the counters of its results."""

    last: UUID | None
    counts: dict[str, int]

    @property
    def done(self) -> int:
        return self.counts["completed"]


def compare_page(
    connection: Connection, run: Run, after: UUID | None, *, first: int, at_most: int = COMPARED_AT_ONCE
) -> ComparedPage:
    """Compare the stored scores of the next page with the run's thresholds, and write the results from number `first`.

    No network runs and no image is read. Inspections that another version has scored are skipped; `next_ids` lists
    them later.
    """
    page = StoredSource.of_run(run).select_ids(connection, after).limit(at_most).cte("page")
    compared = _compared(run, first, page)
    inserted = insert(rescore_results).from_select([column.name for column in compared.selected_columns], compared)
    written = inserted.returning(rescore_results.c.verdict, rescore_results.c.before_verdict).cte("written")
    length = select(func.count()).select_from(page).scalar_subquery()
    last = select(page.c.id).order_by(page.c.id.desc()).limit(1).scalar_subquery()
    row = connection.execute(
        select(length.label("length"), last.label("last"), *_counters(written)).select_from(written)
    ).one()
    counts = dict.fromkeys(runs.COUNTERS, 0) | {name: getattr(row, name) for name in _COUNTERS}
    return ComparedPage(row.last if row.length == at_most else None, counts)


_COUNTERS = ("completed", "ok", "ng", "review", "ok_to_ng", "ng_to_ok")


def _counters(written: CTE) -> list[ColumnElement[int]]:
    verdict, before = written.c.verdict, written.c.before_verdict
    conditions = (
        true(),
        *(verdict == name for name in ("ok", "ng", "review")),
        and_(before == "ok", verdict == "ng"),
        and_(before == "ng", verdict == "ok"),
    )
    return [func.count().filter(condition).label(name) for name, condition in zip(_COUNTERS, conditions, strict=True)]


def _compared(run: Run, first: int, page: CTE) -> Select[Any]:
    """Select the rows of `rescore_results` for the inspections of a page that the run's version has scored."""
    threshold = _threshold_column(run, lambda one: one.threshold)
    review_threshold = _threshold_column(run, lambda one: one.review_threshold)
    copied = ("external_id", "part_id", "lot_id", "line_id", "station_id", "image_day", "image_sha256", "reasons")
    return select(
        literal(run.id).label("run_id"),
        (func.row_number().over(order_by=table.c.id) + literal(first - 1, BigInteger)).label("number"),
        table.c.id.label("inspection_id"),
        *(table.c[name] for name in copied),
        table.c.model_version_id.label("before_model_version_id"),
        table.c.anomaly_score.label("before_score"),
        table.c.threshold.label("before_threshold"),
        table.c.verdict.label("before_verdict"),
        table.c.anomaly_score,
        threshold.label("threshold"),
        review_threshold.label("review_threshold"),
        verdict_sql(table.c.anomaly_score, threshold, review_threshold, table.c.reasons).label("verdict"),
    ).where(table.c.id == page.c.id, is_scored_by_version_of(run))


def _threshold_column(run: Run, part: Callable[[RunThreshold], float | None]) -> ColumnElement[float]:
    """The threshold or the review threshold of the run for the station of an inspection."""
    general = literal(part(run.thresholds.general), Float(53))
    by_station = [
        (table.c.station_id == station, literal(part(own), Float(53)))
        for station, own in run.thresholds.stations.items()
    ]
    return case(*by_station, else_=general) if by_station else general


def next_ids(connection: Connection, run: Run, after: UUID | None, *, at_most: int) -> list[UUID]:
    """Return the next inspections whose images the network has to score."""
    query = StoredSource.of_run(run).select_ids(connection, after).limit(at_most)
    if not run.recompute:
        query = query.where(~func.coalesce(is_scored_by_version_of(run), False))
    return list(connection.execute(query).scalars())


def with_stored_images(connection: Connection, ids: list[UUID]) -> list[UUID]:
    """Return those of these inspections whose images retention has not removed, in the same order."""
    query = (
        select(table.c.id)
        .join(images, and_(images.c.day == table.c.image_day, images.c.sha256 == table.c.image_sha256))
        .where(table.c.id == any_(literal(ids, ARRAY(Uuid))), images.c.removed_at.is_(None))
    )
    stored = set(connection.execute(query).scalars())
    return [id_ for id_ in ids if id_ in stored]
