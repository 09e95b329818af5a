"""The report of a run: what would change, counted by PostgreSQL in a handful of statements over one snapshot.

Scores of different versions cannot be compared with each other, so they are counted in units of their thresholds.
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
    Distribution,
    FailedExample,
    FailuresOfKind,
    Flips,
    Place,
    RescoreReport,
    ReviewedImages,
    Scores,
    Shift,
    Timings,
)
from core.rescoring.reports.results import in_thresholds
from core.rescoring.tables import rescore_results

PLACES = 200
"""At most this many pairs of line and station are listed: those with the most images."""

_QUANTILES = (0.05, 0.5, 0.95)
# Beyond this many thresholds a score is taken for it where scores are correlated: its square has to be a double.
_FAR = 1e6


# It holds no locks, so it may take longer than what works under a lease; its memory is for sorting scores.
_PATIENCE = text("""
SELECT set_config('work_mem', '64MB', true), set_config('statement_timeout', '60s', true),
    set_config('transaction_timeout', '0', true)
""")


def build_report(engine: Engine, run_id: UUID) -> RescoreReport:
    """The report of a run, whether or not it has ended; refuses an unknown one.

    It is read in one snapshot, so its figures agree with each other while the run goes on.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        connection.execute(_PATIENCE)
        run = runs.get(connection, run_id)
        transitions, versions = _transitions(connection, run_id)
        places = _places(connection, run_id)
        compared = sum(transitions[was][now] for was in BEFORE[:3] for now in AFTER[:3])
        flips = _flips(transitions, compared)
        return RescoreReport(
            made_at=dt.datetime.now(dt.UTC),
            run=RescoreRun.of(run),
            pictures=sum(sum(row.values()) for row in transitions.values()),
            versions_before=versions,
            compared=compared,
            changed=sum(one.count for one in flips),
            transitions=transitions,
            flips=flips,
            scores=_distribution(connection, run_id),
            places=places[:PLACES],
            places_left_out=len(places) > PLACES,
            agreement=ReviewedImages.of(agreement.measure_agreement(connection, run_id)),
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
    """Images by their verdict before and after, and those with a verdict before by the version that gave it."""
    found = {was: dict.fromkeys(AFTER, 0) for was in BEFORE}
    versions: Counter[int] = Counter()
    for row in connection.execute(_TRANSITIONS, {"run_id": run_id}):
        found[row.before][row.after] += row.number
        if row.before != "none" and row.version is not None:
            versions[row.version] += row.number
    return found, dict(versions.most_common())


def _flips(transitions: dict[str, dict[str, int]], compared: int) -> list[Flips]:
    return [
        Flips(flip=f"{was}_to_{now}", count=number, share=number / compared if compared else None)
        for was in BEFORE[:3]
        for now in AFTER[:3]
        if was != now and ((number := transitions[was][now]) or {was, now} == {"ok", "ng"})
    ]


_TABLE = rescore_results.c
_BEFORE = in_thresholds(_TABLE.before_score, _TABLE.before_threshold)
_AFTER = in_thresholds(_TABLE.anomaly_score, _TABLE.threshold)


def _clipped(value: Any, low: float, high: float) -> Any:
    """A value brought between two; null stays null, which neither least nor greatest sees to."""
    return case((value.is_not(None), func.greatest(func.least(value, high), low)), else_=null())


def _bin(score: Any) -> Any:
    return _clipped(func.floor(score * (BINS / HISTOGRAM_END)), 0, BINS - 1).cast(Integer)


def _distribution(connection: Connection, run_id: UUID) -> Distribution:
    """One pass counts images by the bins of both scores, another one sorts."""
    own = _TABLE.run_id == run_id
    cells = connection.execute(
        select(
            _bin(_BEFORE).label("before"),
            _bin(_AFTER).label("after"),
            func.count().label("number"),
            func.count(_TABLE.before_score).label("has_before"),
            func.count(_TABLE.anomaly_score).label("has_after"),
        )
        .where(own)
        .group_by("before", "after")
    ).all()
    units = select(_BEFORE.label("before"), _AFTER.label("after")).where(own).subquery()
    shares = array(_QUANTILES)
    clipped = [_clipped(side, -_FAR, _FAR) for side in (units.c.before, units.c.after)]
    ordered = connection.execute(
        select(
            func.percentile_cont(shares).within_group(units.c.before).label("before"),
            func.percentile_cont(shares).within_group(units.c.after).label("after"),
            func.percentile_cont(0.5).within_group(units.c.after - units.c.before).label("shift"),
            func.corr(*clipped).label("correlation"),
        )
    ).one()
    return Distribution(
        before=_side(cells, "before", ordered.before),
        after=_side(cells, "after", ordered.after),
        shift=_shift(cells, ordered),
    )


def _side(cells: Sequence[Row[Any]], side: str, quantiles: Sequence[float] | None) -> Scores | None:
    count = sum(getattr(cell, f"has_{side}") for cell in cells)
    if not count:
        return None
    bins = _marginal(cells, side)
    low, median, high = quantiles or (None, None, None)
    return Scores(count=count, without_unit=count - sum(bins), p05=low, median=median, p95=high, bins=bins)


def _marginal(cells: Sequence[Row[Any]], side: str) -> list[int]:
    bins = [0] * BINS
    for cell in cells:
        if (place := getattr(cell, side)) is not None:
            bins[place] += cell.number
    return bins


def _shift(cells: Sequence[Row[Any]], ordered: Any) -> Shift | None:
    both = [cell for cell in cells if cell.before is not None and cell.after is not None]
    count = sum(cell.number for cell in both)
    if not count:
        return None
    before, after = (np.cumsum(_marginal(both, side)) / count for side in ("before", "after"))
    return Shift(
        count=count,
        median=ordered.shift,
        distance=float(np.abs(before - after).max()),
        correlation=ordered.correlation,
    )


def _places(connection: Connection, run_id: UUID) -> list[Place]:
    before, after = _TABLE.before_verdict, _TABLE.verdict

    def number(condition: Any, name: str) -> Any:
        return func.count().filter(condition).label(name)

    compared = before.is_not(None) & after.is_not(None)
    rows = connection.execute(
        select(
            _TABLE.line_id,
            _TABLE.station_id,
            func.count().label("pictures"),
            func.count(_TABLE.error_code).label("failed"),
            number(compared, "compared"),
            number(before == "ng", "ng_before"),
            number(after == "ng", "ng_after"),
            number(before == "review", "review_before"),
            number(after == "review", "review_after"),
            number((before == "ok") & (after == "ng"), "ok_to_ng"),
            number((before == "ng") & (after == "ok"), "ng_to_ok"),
            # Means, and of clipped scores, for medians would sort all of them.
            func.avg(_clipped(_BEFORE, 0, HISTOGRAM_END)).label("mean_before"),
            func.avg(_clipped(_AFTER, 0, HISTOGRAM_END)).label("mean_after"),
        )
        .where(_TABLE.run_id == run_id)
        .group_by(_TABLE.line_id, _TABLE.station_id)
        .order_by(func.count().desc(), _TABLE.line_id, _TABLE.station_id)
        .limit(PLACES + 1)
    )
    return [Place(**row._mapping) for row in rows]


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


def _failures(connection: Connection, run_id: UUID) -> list[FailuresOfKind]:
    rows = connection.execute(_FAILURES, {"run_id": run_id})
    return [
        FailuresOfKind(code=row.code, count=row.failures, example=FailedExample.model_validate(dict(row._mapping)))
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
        pictures_per_second=run.done / seconds if seconds else None,
    )
