"""The report of a run: what would change, counted by PostgreSQL with a few statements over one snapshot.

Scores of different versions have different scales, so the report gives them in units of their thresholds.
"""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Engine, Integer, Row, case, func, null, select, text
from sqlalchemy.dialects.postgresql import array

from core.rescoring import runs
from core.rescoring.documents import RescoreRun
from core.rescoring.reports import agreement
from core.rescoring.reports.agreement import AFTER, BEFORE
from core.rescoring.reports.documents import (
    BINS,
    HISTOGRAM_END,
    FailedExample,
    FailureGroup,
    FlipCount,
    RescoreReport,
    ReviewedImages,
    ScoreComparison,
    ScoreDistribution,
    ScoreShift,
    StationChanges,
    Timings,
)
from core.rescoring.reports.results import in_thresholds
from core.rescoring.tables import rescore_results

MAX_STATIONS = 200
"""The most pairs of line and station in a report: those with the most images."""

_QUANTILES = (0.05, 0.5, 0.95)
# Scores are clipped to this many thresholds for the correlation, so that their squares fit a double.
_CORRELATION_LIMIT = 1e6


# A report holds no locks, so it may take longer than other transactions. It needs memory to sort the scores.
_SETTINGS = text("""
SELECT set_config('work_mem', '64MB', true), set_config('statement_timeout', '60s', true),
    set_config('transaction_timeout', '0', true)
""")


def build_report(engine: Engine, run_id: UUID) -> RescoreReport:
    """Build the report of a run, which need not have ended. Refuses an unknown run.

    It reads one snapshot, so its figures are consistent while the run goes on.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(_SETTINGS)
        run = runs.get(connection, run_id)
        transitions, versions = _transitions(connection, run_id)
        stations = _stations(connection, run_id)
        compared = sum(transitions[was][now] for was in BEFORE[:3] for now in AFTER[:3])
        flips = _flips(transitions, compared)
        return RescoreReport(
            made_at=dt.datetime.now(dt.UTC),
            run=RescoreRun.from_run(run),
            images=sum(sum(row.values()) for row in transitions.values()),
            versions_before=versions,
            compared=compared,
            changed=sum(flip.count for flip in flips),
            transitions=transitions,
            flips=flips,
            scores=_compare_scores(connection, run_id),
            by_station=stations[:MAX_STATIONS],
            by_station_left_out=len(stations) > MAX_STATIONS,
            agreement=ReviewedImages.from_agreement(agreement.measure_agreement(connection, run_id)),
            failures=_failures(connection, run_id),
            timings=_timings(run),
        )


_TRANSITIONS = text("""
SELECT version.version, coalesce(counted.before_verdict, 'none') AS before,
    coalesce(counted.verdict, 'failed') AS after, counted.number
FROM (
    SELECT before_model_version_id, before_verdict, verdict, count(*) AS number
    FROM rescore_results WHERE run_id = :run_id GROUP BY 1, 2, 3
) AS counted
LEFT JOIN model_versions AS version ON version.id = counted.before_model_version_id
""")


def _transitions(connection: Connection, run_id: UUID) -> tuple[dict[str, dict[str, int]], dict[int, int]]:
    """Count images by their verdict before and after, and recorded verdicts by the version that gave them."""
    transitions = {was: dict.fromkeys(AFTER, 0) for was in BEFORE}
    versions: Counter[int] = Counter()
    for row in connection.execute(_TRANSITIONS, {"run_id": run_id}):
        transitions[row.before][row.after] += row.number
        if row.before != "none" and row.version is not None:
            versions[row.version] += row.number
    return transitions, dict(versions.most_common())


def _flips(transitions: dict[str, dict[str, int]], compared: int) -> list[FlipCount]:
    return [
        FlipCount(flip=f"{was}_to_{now}", count=number, share=number / compared if compared else None)
        for was in BEFORE[:3]
        for now in AFTER[:3]
        if was != now and ((number := transitions[was][now]) or {was, now} == {"ok", "ng"})
    ]


_TABLE = rescore_results.c
_BEFORE = in_thresholds(_TABLE.before_score, _TABLE.before_threshold)
_AFTER = in_thresholds(_TABLE.anomaly_score, _TABLE.threshold)


def _clipped(value: Any, low: float, high: float) -> Any:
    """Clip a value to a range. Null stays null, unlike in `least` and `greatest`."""
    return case((value.is_not(None), func.greatest(func.least(value, high), low)), else_=null())


def _bin(score: Any) -> Any:
    return _clipped(func.floor(score * (BINS / HISTOGRAM_END)), 0, BINS - 1).cast(Integer)


def _compare_scores(connection: Connection, run_id: UUID) -> ScoreComparison:
    """Compare the scores before and after. One pass counts images by the bins of both scores, another sorts them."""
    of_run = _TABLE.run_id == run_id
    cells = connection.execute(
        select(
            _bin(_BEFORE).label("before"),
            _bin(_AFTER).label("after"),
            func.count().label("number"),
            func.count(_TABLE.before_score).label("has_before"),
            func.count(_TABLE.anomaly_score).label("has_after"),
        )
        .where(of_run)
        .group_by("before", "after")
    ).all()
    units = select(_BEFORE.label("before"), _AFTER.label("after")).where(of_run).subquery()
    shares = array(_QUANTILES)
    clipped = [_clipped(side, -_CORRELATION_LIMIT, _CORRELATION_LIMIT) for side in (units.c.before, units.c.after)]
    ordered = connection.execute(
        select(
            func.percentile_cont(shares).within_group(units.c.before).label("before"),
            func.percentile_cont(shares).within_group(units.c.after).label("after"),
            func.percentile_cont(0.5).within_group(units.c.after - units.c.before).label("shift"),
            func.corr(*clipped).label("correlation"),
        )
    ).one()
    return ScoreComparison(
        before=_score_distribution(cells, "before", ordered.before),
        after=_score_distribution(cells, "after", ordered.after),
        shift=_shift(cells, ordered),
    )


def _score_distribution(
    cells: Sequence[Row[Any]], side: str, quantiles: Sequence[float] | None
) -> ScoreDistribution | None:
    count = sum(getattr(cell, f"has_{side}") for cell in cells)
    if not count:
        return None
    bins = _bin_counts(cells, side)
    low, median, high = quantiles or (None, None, None)
    return ScoreDistribution(count=count, without_unit=count - sum(bins), p05=low, median=median, p95=high, bins=bins)


def _bin_counts(cells: Sequence[Row[Any]], side: str) -> list[int]:
    bins = [0] * BINS
    for cell in cells:
        if (bin_index := getattr(cell, side)) is not None:
            bins[bin_index] += cell.number
    return bins


def _shift(cells: Sequence[Row[Any]], ordered: Any) -> ScoreShift | None:
    both = [cell for cell in cells if cell.before is not None and cell.after is not None]
    count = sum(cell.number for cell in both)
    if not count:
        return None
    before, after = (np.cumsum(_bin_counts(both, side)) / count for side in ("before", "after"))
    return ScoreShift(
        count=count,
        median=ordered.shift,
        distance=float(np.abs(before - after).max()),
        correlation=ordered.correlation,
    )


def _stations(connection: Connection, run_id: UUID) -> list[StationChanges]:
    before, after = _TABLE.before_verdict, _TABLE.verdict

    def count(condition: Any, name: str) -> Any:
        return func.count().filter(condition).label(name)

    compared = before.is_not(None) & after.is_not(None)
    rows = connection.execute(
        select(
            _TABLE.line_id,
            _TABLE.station_id,
            func.count().label("images"),
            func.count(_TABLE.error_code).label("failed"),
            count(compared, "compared"),
            count(before == "ng", "ng_before"),
            count(after == "ng", "ng_after"),
            count(before == "review", "review_before"),
            count(after == "review", "review_after"),
            count((before == "ok") & (after == "ng"), "ok_to_ng"),
            count((before == "ng") & (after == "ok"), "ng_to_ok"),
            # Means of clipped scores, because medians would have to sort all scores.
            func.avg(_clipped(_BEFORE, 0, HISTOGRAM_END)).label("mean_before"),
            func.avg(_clipped(_AFTER, 0, HISTOGRAM_END)).label("mean_after"),
        )
        .where(_TABLE.run_id == run_id)
        .group_by(_TABLE.line_id, _TABLE.station_id)
        .order_by(func.count().desc(), _TABLE.line_id, _TABLE.station_id)
        .limit(MAX_STATIONS + 1)
    )
    return [StationChanges(**row._mapping) for row in rows]


_FAILURES = text("""
SELECT kind.error_code AS code, kind.number AS failures, one.number, one.inspection_id, one.path,
    one.error_detail AS detail
FROM (
    SELECT error_code, count(*) AS number, min(number) AS first FROM rescore_results
    WHERE run_id = :run_id AND error_code IS NOT NULL GROUP BY error_code
) AS kind
JOIN rescore_results AS one ON one.run_id = :run_id AND one.number = kind.first
ORDER BY kind.number DESC, kind.error_code
""")


def _failures(connection: Connection, run_id: UUID) -> list[FailureGroup]:
    rows = connection.execute(_FAILURES, {"run_id": run_id})
    return [
        FailureGroup(code=row.code, count=row.failures, example=FailedExample.model_validate(dict(row._mapping)))
        for row in rows
    ]


def _timings(run: runs.Run) -> Timings:
    seconds = None
    if run.started_at is not None:
        seconds = ((run.finished_at or dt.datetime.now(dt.UTC)) - run.started_at).total_seconds()
    return Timings(
        started_at=run.started_at,
        finished_at=run.finished_at,
        seconds=seconds,
        images_per_second=run.done / seconds if seconds else None,
    )
