"""Stored inspections as the source of a run: they are counted, their stored scores judged, and the rest is named.

All three go through the source in the order of the ids, piece by piece, so each statement costs the same however long
the archive is. What was accepted after the run was made is not in its source.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
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
from core.tables import inspections as table

COUNTED_AT_ONCE = 100_000
JUDGED_AT_ONCE = 20_000


@dataclass(frozen=True)
class CountedPage:
    """What lay in one piece of the source: how many inspections, and the last of them; None at the source's end."""

    inspections: int
    last: UUID | None


def _source(connection: Connection, run: Run, after: UUID | None) -> Select[Any]:
    """Ids of the source beyond `after`, in their order."""
    filters = Where.model_validate(run.source["where"]).filters(run.recipe)
    until = min(filters.until or run.created_at, run.created_at)
    narrowed = inspections.conditions(connection, replace(filters, until=until), table)
    query = select(table.c.id).where(*narrowed).order_by(table.c.id)
    return query if after is None else query.where(table.c.id > after)


def count_page(connection: Connection, run: Run, after: UUID | None, *, at_most: int = COUNTED_AT_ONCE) -> CountedPage:
    """Count the next piece of the source."""
    piece = _source(connection, run, after).limit(at_most).cte("piece")
    last = select(piece.c.id).order_by(piece.c.id.desc()).limit(1).scalar_subquery()
    row = connection.execute(select(func.count(), last).select_from(piece)).one()
    return CountedPage(row[0], row[1] if row[0] == at_most else None)


def has_score_of(run: Run) -> ColumnElement[bool]:
    """Whether an inspection has been scored by the run's version, so that its score need not be computed again."""
    return and_(table.c.model_version_id == run.model_version_id, table.c.status == "completed")


@dataclass(frozen=True)
class ComparedPage:
    """What judging a piece of the source came to: `counts` are those of `runs.COUNTED`."""

    last: UUID | None
    counts: dict[str, int]

    @property
    def done(self) -> int:
        return self.counts["completed"]


def compare_page(
    connection: Connection, run: Run, after: UUID | None, *, first: int, at_most: int = JUDGED_AT_ONCE
) -> ComparedPage:
    """Compare the stored scores of the next piece with the run's thresholds, and write the results from number `first`.

    No network runs and no image is read. Inspections that another version has scored are left for later.
    """
    piece = _source(connection, run, after).limit(at_most).cte("piece")
    judged = _judged(run, first, piece)
    entered = insert(rescore_results).from_select([column.name for column in judged.selected_columns], judged)
    written = entered.returning(rescore_results.c.verdict, rescore_results.c.before_verdict).cte("written")
    length = select(func.count()).select_from(piece).scalar_subquery()
    last = select(piece.c.id).order_by(piece.c.id.desc()).limit(1).scalar_subquery()
    row = connection.execute(
        select(length.label("length"), last.label("last"), *_counted(written)).select_from(written)
    ).one()
    counts = dict.fromkeys(runs.COUNTED, 0) | {name: getattr(row, name) for name in _COUNTED}
    return ComparedPage(row.last if row.length == at_most else None, counts)


_COUNTED = ("completed", "ok", "ng", "review", "ok_to_ng", "ng_to_ok")


def _counted(written: CTE) -> list[ColumnElement[int]]:
    verdict, before = written.c.verdict, written.c.before_verdict
    conditions = (
        true(),
        *(verdict == name for name in ("ok", "ng", "review")),
        and_(before == "ok", verdict == "ng"),
        and_(before == "ng", verdict == "ok"),
    )
    return [func.count().filter(condition).label(name) for name, condition in zip(_COUNTED, conditions, strict=True)]


def _judged(run: Run, first: int, piece: CTE) -> Select[Any]:
    """The rows of `rescore_results` for those of a piece that the run's version has scored."""
    threshold = _limit(run, lambda limit: limit.threshold)
    review_threshold = _limit(run, lambda limit: limit.review_threshold)
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
    ).where(table.c.id == piece.c.id, has_score_of(run))


def _limit(run: Run, part: Callable[[RunThreshold], float | None]) -> ColumnElement[float]:
    """A part of the limit that judges an inspection, by its station."""
    general = literal(part(run.limits.general), Float(53))
    own = [(table.c.station_id == name, literal(part(one), Float(53))) for name, one in run.limits.stations.items()]
    return case(*own, else_=general) if own else general


def next_ids(connection: Connection, run: Run, after: UUID | None, *, at_most: int) -> list[UUID]:
    """The next inspections whose images the network has to score."""
    query = _source(connection, run, after).limit(at_most)
    if not run.recompute:
        query = query.where(~func.coalesce(has_score_of(run), False))
    return list(connection.execute(query).scalars())
