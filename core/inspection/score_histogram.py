"""Histogram of the recent scores of a model version, by the machine's verdict and by what reviews say."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, select

from core.inspection.scored_inspections import reviewed_since, scored_query
from core.models import thresholds
from core.models.model_versions import ModelVersion
from core.models.thresholds import Threshold
from core.models.verdicts import Verdict

MAX_SCORES = 100_000
"""Most inspections in a histogram, newest first."""
QUANTILES: Final = (1, 5, 25, 50, 75, 95, 99)
"""In percent."""
_SHOWN: Final = 0.995
"""The share of the scores that the bins of equal width cover, at least; few high scores would make all others small."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """A bin of a histogram: scores from `low` up to, but not at, `high`; None for all above.

    Attributes:
        verdicts: number of inspections by the machine's verdict.
        reviewed: number of the reviewed ones by the verdict of the newest review.
    """

    low: float
    high: float | None
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    reviewed: Counter[Verdict] = field(default_factory=Counter)


@dataclass(frozen=True)
class ScoreHistogram:
    """The scores of a version at a station, or at all stations without a threshold of their own.

    Attributes:
        threshold: the one in force there.
        count: number of inspections in the histogram.
        truncated: whether the period has older inspections, which are not in it.
        smallest, largest: score; None without inspections.
        quantiles: scores by percent, the smallest score that this share does not exceed; empty without inspections.
        bins: of equal width, and one for all scores above them; empty without inspections.
    """

    threshold: Threshold
    count: int
    truncated: bool
    smallest: float | None
    largest: float | None
    quantiles: Mapping[int, float]
    bins: list[Bin]


def read(
    connection: Connection,
    version: ModelVersion,
    *,
    station_id: str | None,
    since: dt.datetime,
    until: dt.datetime | None,
    bins: int,
    at_most: int = MAX_SCORES,
) -> ScoreHistogram:
    """Return the histogram of the scores of inspections accepted since a moment, with this many bins, at least 1."""
    query = scored_query(version, station_id=station_id, since=since, until=until)
    newest, reviewed = query.limit(at_most).subquery(), reviewed_since(version, since)
    # One array for each pair of verdicts: reading the rows one by one takes much longer.
    groups = connection.execute(
        select(
            newest.c.verdict,
            reviewed.c.verdict.label("reviewed"),
            func.array_agg(newest.c.anomaly_score).label("scores"),
        )
        .join(reviewed, reviewed.c.inspection_id == newest.c.id, isouter=True)
        .group_by(newest.c.verdict, reviewed.c.verdict)
    ).all()
    scores: Scores = np.sort(np.array([score for group in groups for score in group.scores], dtype=np.float64))
    is_full = scores.size == at_most
    threshold = thresholds.in_force_at(connection, version.id, station_id)
    return ScoreHistogram(
        threshold=threshold,
        count=scores.size,
        truncated=is_full and connection.execute(query.offset(at_most).limit(1)).first() is not None,
        smallest=float(scores[0]) if scores.size else None,
        largest=float(scores[-1]) if scores.size else None,
        quantiles={percent: _quantile(scores, percent / 100) for percent in QUANTILES} if scores.size else {},
        bins=_fill(_find_edges(scores, threshold.threshold, bins), groups) if scores.size else [],
    )


def _quantile(ascending: Scores, share: float) -> float:
    return float(np.quantile(ascending, share, method="inverted_cdf"))


def _find_edges(ascending: Scores, threshold: float, bins: int) -> Scores:
    """Return the edges of the bins, ascending: from the smallest score to almost the largest one.

    The threshold is within them.
    """
    low = min(float(ascending[0]), threshold)
    high = max(_quantile(ascending, _SHOWN), threshold)
    high = max(np.nextafter(high, np.inf), low + max(abs(low), 1e-6) * 1e-6)  # never of no width
    shares = np.linspace(0, 1, bins + 1)
    edges: Scores = low * (1 - shares) + high * shares  # unlike high - low, this does not overflow
    return edges


def _fill(edges: Scores, groups: Sequence[Row[*tuple[Any, ...]]]) -> list[Bin]:
    """Count the scores of each group in bins between the edges, and above the last one."""
    bins = [*(Bin(float(low), float(high)) for low, high in pairwise(edges)), Bin(float(edges[-1]), None)]
    for group in groups:
        positions = np.searchsorted(edges, np.array(group.scores), side="right") - 1
        for position, number in zip(*np.unique(positions.clip(0), return_counts=True), strict=True):
            bins[position].verdicts[group.verdict] += int(number)
            if group.reviewed is not None:
                bins[position].reviewed[group.reviewed] += int(number)
    return bins
