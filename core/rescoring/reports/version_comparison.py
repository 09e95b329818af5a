"""Two versions of a recipe on the same inspections, from results that are stored already. No network runs.

An inspection can be compared if both versions have scored it: one of them live and the other in a re-scoring run or as
a challenger, or both in runs. Both scores are judged by the thresholds that are in force now, so the comparison says
what activating the other version would change.
"""

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.errors import Code, Refused
from core.inspection.inspections import reviews_of
from core.models import model_versions
from core.models.model_versions import ModelVersion
from core.models.verdicts import Verdict, decide_verdict, reviewed_verdict
from core.rescoring.reports.agreement import REVIEWED, Agreement
from core.rescoring.run_thresholds import RunThresholds

MAX_COMPARED = 2000
"""The most inspections that are compared: the newest."""
MAX_RUNS = 8
"""The most runs of each version whose results are used: the newest."""
MAX_RESULTS = 5000
"""The most results of each run that are used: the newest."""


@dataclass(frozen=True)
class Side:
    """The result of one version.

    Attributes:
        ratio: the score in units of the threshold; None if that is not above 0, or if a double cannot hold it.
        verdict: by the threshold.
    """

    anomaly_score: float
    ratio: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Pair:
    """An inspection that both versions have scored; `reviewed` is what its reviews decided, or None."""

    inspection_id: UUID
    a: Side
    b: Side
    reviewed: Verdict | None


@dataclass(frozen=True)
class Missing:
    """How many of the newest inspections a version has not scored, and when the oldest of them was accepted."""

    model_version: int
    inspections: int
    since: dt.datetime | None


@dataclass(frozen=True)
class VersionComparison:
    """The comparison of version a with version b.

    Attributes:
        thresholds_a, thresholds_b: those in force, which give the verdicts.
        pairs: the compared inspections, newest first.
        newest: the number of the newest completed inspections in which `missing` counts, for each version.
    """

    a: ModelVersion
    b: ModelVersion
    thresholds_a: RunThresholds
    thresholds_b: RunThresholds
    pairs: list[Pair]
    newest: int
    missing: list[Missing]

    @property
    def flips(self) -> Counter[tuple[Verdict, Verdict]]:
        """Numbers of inspections by the verdicts of a and b, if they differ."""
        return Counter((pair.a.verdict, pair.b.verdict) for pair in self.pairs if pair.a.verdict != pair.b.verdict)

    @property
    def agreement(self) -> Agreement:
        """Agreement of both versions with reviews; `before` is version a, `after` is version b."""
        return Agreement(
            Counter((pair.reviewed, pair.a.verdict, pair.b.verdict) for pair in self.pairs if pair.reviewed in REVIEWED)
        )


# Results of the newest runs of a version, each inspection once. Results are numbered in the order of their source, so
# the newest have the highest numbers.
_RESULTS = """
SELECT DISTINCT ON (result.inspection_id) result.inspection_id, result.station_id, result.anomaly_score, result.reasons,
    result.before_model_version_id, result.before_score
FROM (
    SELECT id FROM rescore_runs WHERE recipe_id = :recipe_id AND model_version_id = :{version}
    ORDER BY id DESC LIMIT :max_runs
) AS run
CROSS JOIN LATERAL (
    SELECT * FROM rescore_results WHERE run_id = run.id ORDER BY number DESC LIMIT :max_results
) AS result
WHERE result.inspection_id IS NOT NULL AND result.anomaly_score IS NOT NULL
ORDER BY result.inspection_id, run.id DESC
"""
_SIDES = f"""
WITH result_a AS MATERIALIZED ({_RESULTS.format(version="a")}),
result_b AS MATERIALIZED ({_RESULTS.format(version="b")})
"""
# A live score has null reasons here; those of its inspection are read once the newest pairs are known.
_PAIRS = text(f"""
{_SIDES}, pair AS (
    SELECT 1 AS source, inspection_id, station_id, before_score AS score_a, CAST(NULL AS text[]) AS reasons_a,
        anomaly_score AS score_b, reasons AS reasons_b
    FROM result_b WHERE before_model_version_id = :a AND before_score IS NOT NULL
    UNION ALL
    SELECT 2, inspection_id, station_id, anomaly_score, reasons, before_score, NULL
    FROM result_a WHERE before_model_version_id = :b AND before_score IS NOT NULL
    UNION ALL
    SELECT 3, inspection_id, a.station_id, a.anomaly_score, a.reasons, b.anomaly_score, b.reasons
    FROM result_a AS a JOIN result_b AS b USING (inspection_id)
), newest AS (
    SELECT DISTINCT ON (inspection_id) * FROM pair ORDER BY inspection_id DESC, source LIMIT :at_most
)
SELECT newest.inspection_id, newest.station_id, score_a, score_b,
    coalesce(reasons_a, inspection.reasons, '{{}}') AS reasons_a,
    coalesce(reasons_b, inspection.reasons, '{{}}') AS reasons_b
FROM newest LEFT JOIN inspections AS inspection ON inspection.id = newest.inspection_id
ORDER BY newest.inspection_id DESC
""")  # noqa: S608 - constants
_MISSING = text(f"""
{_SIDES}, newest AS (
    SELECT id, created_at, model_version_id FROM inspections
    WHERE recipe_id = :recipe_id AND status = 'completed' ORDER BY id DESC LIMIT :at_most
), scored AS (
    SELECT created_at,
        model_version_id = :a OR id IN (SELECT inspection_id FROM result_a) AS by_a,
        model_version_id = :b OR id IN (SELECT inspection_id FROM result_b) AS by_b
    FROM newest
)
SELECT count(*) AS newest,
    count(*) FILTER (WHERE NOT by_a) AS without_a, min(created_at) FILTER (WHERE NOT by_a) AS since_a,
    count(*) FILTER (WHERE NOT by_b) AS without_b, min(created_at) FILTER (WHERE NOT by_b) AS since_b
FROM scored
""")  # noqa: S608 - constants


def compare_versions(
    connection: Connection, recipe: str, a: int, b: int, *, at_most: int = MAX_COMPARED
) -> VersionComparison:
    """Compare two versions on the newest inspections that both have scored.

    Raises:
        Refused: an unknown recipe or version; INVALID_FIELD if both are the same.
    """
    if a == b:
        raise Refused(Code.INVALID_FIELD, "Name two different versions to compare.")
    version_a, version_b = (model_versions.get(connection, recipe, version) for version in (a, b))
    thresholds_a, thresholds_b = (RunThresholds.in_force(connection, version.id) for version in (version_a, version_b))
    parameters = {
        "recipe_id": version_a.recipe_id,
        "a": version_a.id,
        "b": version_b.id,
        "at_most": at_most,
        "max_runs": MAX_RUNS,
        "max_results": MAX_RESULTS,
    }
    rows = connection.execute(_PAIRS, parameters).all()
    missing = connection.execute(_MISSING, parameters).one()
    return VersionComparison(
        version_a,
        version_b,
        thresholds_a,
        thresholds_b,
        pairs=_pairs(connection, rows, thresholds_a, thresholds_b),
        newest=missing.newest,
        missing=[Missing(a, missing.without_a, missing.since_a), Missing(b, missing.without_b, missing.since_b)],
    )


def _pairs(connection: Connection, rows: Sequence[Row[Any]], of_a: RunThresholds, of_b: RunThresholds) -> list[Pair]:
    reviews = reviews_of(connection, [row.inspection_id for row in rows])
    return [
        Pair(
            row.inspection_id,
            _side(row.score_a, row.reasons_a, of_a, row.station_id),
            _side(row.score_b, row.reasons_b, of_b, row.station_id),
            reviewed_verdict(reviews.get(row.inspection_id, ())),
        )
        for row in rows
    ]


def _side(score: float, reasons: list[str], thresholds: RunThresholds, station_id: str | None) -> Side:
    limit = thresholds.for_station(station_id)
    ratio = score / limit.threshold if limit.threshold > 0 else math.nan
    ratio_or_none = ratio if math.isfinite(ratio) else None
    return Side(score, ratio_or_none, decide_verdict(score, limit.threshold, limit.review_threshold, reasons))
