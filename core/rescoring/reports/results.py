"""Reading the results of a run: page by page in the order of its source, or only the flips."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Engine, Float, Row, and_, case, func, null, select, union_all

from core.errors import Code, Refused
from core.inspection.inspections import MAX_PAGE, Review, decisive_review, reviews_of
from core.models.verdicts import Verdict
from core.rescoring import runs
from core.rescoring.tables import rescore_results
from core.tables import model_versions

VERDICTS: tuple[Verdict, ...] = ("ok", "ng", "review")

_TABLE = rescore_results.c
# Must match the condition of the partial index `ix_rescore_results_flips`.
_IS_FLIP = _TABLE.before_verdict != _TABLE.verdict


@dataclass(frozen=True)
class RunResult:
    """The result of one image of a run, with what was recorded before and the review that decided.

    Attributes:
        number: its position in the source, from 1.
        image_day, image_sha256: where a stored image is; an image of an archive has only the second.
        before_model_version, before_score, before_threshold, before_verdict: what was recorded for the inspection;
            nothing was recorded if there is no verdict.
        review: the decisive review of the inspection at the time of the query.
    """

    number: int
    inspection_id: UUID | None
    path: str | None
    external_id: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: dt.datetime | None
    metadata: dict[str, Any] | None
    image_day: dt.date | None
    image_sha256: bytes | None
    before_model_version_id: int | None
    before_model_version: int | None
    before_score: float | None
    before_threshold: float | None
    before_verdict: Verdict | None
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: Verdict | None
    reasons: list[str]
    error_code: str | None
    error_detail: str | None
    scored_at: dt.datetime
    review: Review | None

    @property
    def flip(self) -> str | None:
        """`<before>_to_<after>` if the two verdicts differ, otherwise None."""
        if self.before_verdict is None or self.verdict is None or self.before_verdict == self.verdict:
            return None
        return f"{self.before_verdict}_to_{self.verdict}"


@dataclass(frozen=True)
class ResultFilters:
    """Filters of a listing of results; None means any."""

    verdict: Verdict | None = None
    before_verdict: Verdict | None = None
    line_id: str | None = None
    station_id: str | None = None
    error_code: str | None = None


_COLUMNS = (
    *(column for column in _TABLE if column.name != "run_id"),
    model_versions.c.version.label("before_model_version"),
)
_SELECT = select(*_COLUMNS).select_from(
    rescore_results.outerjoin(model_versions, model_versions.c.id == _TABLE.before_model_version_id)
)


def in_thresholds(score: ColumnElement[Any], threshold: ColumnElement[Any]) -> ColumnElement[float]:
    """A score in units of its threshold; a part is ng from 1 on.

    Null if the threshold is not above 0, or if a double cannot hold the ratio.
    """
    size = func.abs(score)
    is_ratio = and_(threshold.between(1e-100, 1e100), (score == 0) | size.between(1e-100, 1e100))
    return case((is_ratio, score / threshold), else_=null()).cast(Float(53))


def get(connection: Connection, run_id: UUID, number: int) -> RunResult:
    """Return one result; refuses a number that has no result yet."""
    rows = connection.execute(_SELECT.where(_TABLE.run_id == run_id, _TABLE.number == number)).all()
    if not rows:
        raise Refused(Code.NOT_FOUND, f"Re-scoring run {run_id} has no result {number}.")
    return _results(connection, rows)[0]


def list_page(
    connection: Connection, run_id: UUID, filters: ResultFilters, *, after: int | None, limit: int
) -> tuple[list[RunResult], int | None]:
    """Return one page in the order of the source, and the `after` of the next page, or None at the end."""
    conditions = [_TABLE[name] == value for name, value in vars(filters).items() if value is not None]
    query = _SELECT.where(_TABLE.run_id == run_id, _TABLE.number > (after or 0), *conditions)
    return _page(connection, connection.execute(query.order_by(_TABLE.number).limit(limit + 1)).all(), limit)


def of_inspection(
    connection: Connection, inspection_id: UUID, *, before: UUID | None, limit: int
) -> tuple[list[tuple[UUID, RunResult]], UUID | None]:
    """Return one page of the results of an inspection with their runs, the newest run first.

    Returns:
        The page, and the `before` of the next page, or None at the end.
    """
    query = _SELECT.add_columns(_TABLE.run_id).where(_TABLE.inspection_id == inspection_id)
    if before is not None:
        query = query.where(_TABLE.run_id < before)
    rows = connection.execute(query.order_by(_TABLE.run_id.desc()).limit(limit + 1)).all()
    run_ids = [row.run_id for row in rows[:limit]]
    found = _results(connection, rows[:limit])
    return list(zip(run_ids, found, strict=True)), run_ids[-1] if len(rows) > limit else None


def flips_page(
    connection: Connection,
    run_id: UUID,
    *,
    before: Verdict | None = None,
    verdict: Verdict | None = None,
    after: int | None,
    limit: int,
) -> tuple[list[RunResult], int | None]:
    """Return one page of the flips, optionally from one verdict or to one verdict, like `list_page`.

    Each kind of flip is read in the order of the index of flips, so a page costs the same however many results there
    are.
    """
    kinds = [
        select(
            _SELECT.where(_TABLE.run_id == run_id, _IS_FLIP, _TABLE.before_verdict == was, _TABLE.verdict == now)
            .where(_TABLE.number > (after or 0))
            .order_by(_TABLE.number)
            .limit(limit + 1)
            .subquery()
        )
        for was in VERDICTS
        for now in VERDICTS
        if was != now and before in (None, was) and verdict in (None, now)
    ]
    if not kinds:
        return [], None
    merged = union_all(*kinds).subquery()
    rows = connection.execute(select(merged).order_by(merged.c.number).limit(limit + 1)).all()
    return _page(connection, rows, limit)


def largest_moves(
    connection: Connection, run_id: UUID, before: Verdict, verdict: Verdict, *, limit: int
) -> list[RunResult]:
    """Return the flips of one kind whose score, in units of its threshold, moved the most."""
    moved = func.abs(
        in_thresholds(_TABLE.anomaly_score, _TABLE.threshold)
        - in_thresholds(_TABLE.before_score, _TABLE.before_threshold)
    )
    query = _SELECT.where(
        _TABLE.run_id == run_id, _IS_FLIP, _TABLE.before_verdict == before, _TABLE.verdict == verdict
    ).order_by(moved.desc().nulls_last(), _TABLE.number)
    return _results(connection, connection.execute(query.limit(limit)).all())


def highest_scores(connection: Connection, run_id: UUID, *, limit: int) -> list[RunResult]:
    """Return the results with the highest scores, in units of their thresholds."""
    score = in_thresholds(_TABLE.anomaly_score, _TABLE.threshold)
    query = _SELECT.where(_TABLE.run_id == run_id, _TABLE.verdict.is_not(None))
    rows = connection.execute(query.order_by(score.desc().nulls_last(), _TABLE.number).limit(limit)).all()
    return _results(connection, rows)


def pages(engine: Engine, run_id: UUID, *, flips: bool, size: int = MAX_PAGE) -> Iterator[Sequence[RunResult]]:
    """Yield all results, or all flips, in the order of the source, in pages of `size`. The first page may be empty.

    Each page is read in a short transaction. Refuses an unknown run.
    """
    after = None
    while True:
        with engine.begin() as connection:
            runs.get(connection, run_id)
            if flips:
                items, after = flips_page(connection, run_id, after=after, limit=size)
            else:
                items, after = list_page(connection, run_id, ResultFilters(), after=after, limit=size)
        yield items
        if after is None:
            return


def _page(connection: Connection, rows: Sequence[Row[Any]], limit: int) -> tuple[list[RunResult], int | None]:
    items = _results(connection, rows[:limit])
    return items, items[-1].number if len(rows) > limit else None


def _results(connection: Connection, rows: Sequence[Row[Any]]) -> list[RunResult]:
    inspected = [row.inspection_id for row in rows if row.inspection_id is not None]
    reviews = reviews_of(connection, inspected) if inspected else {}
    return [
        RunResult(
            **{name: value for name, value in row._mapping.items() if name != "run_id"},
            review=decisive_review(reviews.get(row.inspection_id, ())),
        )
        for row in rows
    ]
