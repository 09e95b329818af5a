"""Compare two histograms: how far apart they are, and how far chance alone would bring them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 10
PARTS_PER_BIN = 10
_UNSEEN = 0.5
"""Added to every count of the PSI, whose logarithm does not exist for an empty bin (Jeffreys' prior)."""
_BISECTIONS = 60


@dataclass(frozen=True)
class Histogram:
    """Counts by bin of `core.drift.grids`.

    Attributes:
        bins: int64, ascending.
        counts: int64, positive, as many as bins.
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, counts: Sequence[tuple[int, int]]) -> "Histogram":
        """Return the histogram of (bin, count); counts of the same bin are added up."""
        bins = np.array([bin_ for bin_, _ in counts], dtype=np.int64)
        unique, inverse = np.unique(bins, return_inverse=True)
        added = np.zeros(unique.size, dtype=np.int64)
        np.add.at(added, inverse, np.array([count for _, count in counts], dtype=np.int64))
        return cls(unique, added)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield each bin with its count."""
        yield from zip(self.bins.tolist(), self.counts.tolist(), strict=True)

    def quantile(self, share: float) -> int:
        """Return the first bin up to which at least this share of the total lies. The histogram must not be empty."""
        return int(self.bins[np.searchsorted(np.cumsum(self.counts), math.ceil(share * self.total))])

    def within(self, edges: Sequence[int]) -> NDArray[np.int64]:
        """Return the counts up to each edge (a bin, included), and above the last one: one more than edges."""
        return np.bincount(np.searchsorted(edges, self.bins), weights=self.counts, minlength=len(edges) + 1).astype(
            np.int64
        )


def quantile_edges(reference: Histogram) -> list[int]:
    """Return the edges of quantile bins: the last bin of each quantile bin but the last, which is open.

    There are up to ten quantile bins, with about equally many parts of the reference, and at least ten, each. Empty if
    the reference has too few parts, or if its parts are alike.
    """
    wanted = min(MAX_BINS, reference.total // PARTS_PER_BIN)
    edges = sorted({reference.quantile(part / wanted) for part in range(1, wanted)})
    return edges[:-1] if edges and edges[-1] == reference.bins[-1] else edges


@dataclass(frozen=True)
class Comparison:
    """How far a histogram is from a reference.

    Attributes:
        psi: population stability index over the quantile bins of the reference, 0 or more.
        ks: Kolmogorov-Smirnov statistic, 0 to 1: the largest difference of the two cumulative distributions. It is
            taken between the bins of the grid, so it may be smaller than that of the exact values, by at most the share
            of one bin.
        parts: number of parts compared.
        reference_parts: number of parts of the reference.
        edges: of the quantile bins, as `quantile_edges` returns them.
        shares: of the parts in each quantile bin, 0 to 1.
        reference_shares: of the parts of the reference in each quantile bin.
    """

    psi: float
    ks: float
    parts: int
    reference_parts: int
    edges: list[int]
    shares: list[float]
    reference_shares: list[float]

    def psi_by_chance(self, probability: float) -> float:
        """Return the PSI that two samples of the same distribution exceed with this probability.

        It is about (1/n + 1/m) times the quantile of the chi-squared distribution with one degree of freedom less than
        there are bins (Yurdakul & Naranjo, "Statistical properties of the population stability index", Journal of Risk
        Model Validation 14(4), 2020).
        """
        return self._inverse_sizes * chi_squared_quantile(1 - probability, len(self.edges))

    def ks_by_chance(self, probability: float) -> float:
        """Return the KS statistic that two samples of the same distribution exceed with at most this probability.

        It is sqrt(-ln(p/2) / 2 · (1/n + 1/m)), the first term of Smirnov's limit (Smirnov, "Table for estimating the
        goodness of fit of empirical distributions", Annals of Mathematical Statistics 19, 1948).
        """
        return math.sqrt(-math.log(probability / 2) / 2 * self._inverse_sizes)

    @property
    def _inverse_sizes(self) -> float:
        return 1 / self.parts + 1 / self.reference_parts


def compare(histogram: Histogram, reference: Histogram) -> Comparison | None:
    """Compare a histogram that is not empty with a reference; None if the reference cannot be divided into bins."""
    edges = quantile_edges(reference)
    if not edges:
        return None
    counts, expected = histogram.within(edges), reference.within(edges)
    return Comparison(
        psi=_psi(counts, expected),
        ks=_ks(histogram, reference),
        parts=histogram.total,
        reference_parts=reference.total,
        edges=edges,
        shares=(counts / histogram.total).tolist(),
        reference_shares=(expected / reference.total).tolist(),
    )


def _psi(counts: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the population stability index: the sum of (p - q) · ln(p / q) over the bins."""
    p, q = ((each + _UNSEEN) / (each.sum() + _UNSEEN * each.size) for each in (counts, expected))
    return float(((p - q) * np.log(p / q)).sum())


def _ks(histogram: Histogram, reference: Histogram) -> float:
    bins = np.union1d(histogram.bins, reference.bins)
    cumulative = (
        np.concatenate(([0], np.cumsum(each.counts)))[np.searchsorted(each.bins, bins, side="right")] / each.total
        for each in (histogram, reference)
    )
    first, second = cumulative
    return float(np.abs(first - second).max())


@lru_cache(1000)
def chi_squared_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of the chi-squared distribution. It is computed here because the api does not import scipy.

    Args:
        probability: at least 0.5 and below 1.
        degrees: of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while chi_squared_tail(high, degrees) > 1 - probability:
        low, high = high, 2 * high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if chi_squared_tail(middle, degrees) > 1 - probability:
            low = middle
        else:
            high = middle
    return high


def chi_squared_tail(value: float, degrees: int) -> float:
    """Return the probability that a chi-squared variable exceeds a value (Abramowitz & Stegun 26.4.4 and 26.4.5).

    Args:
        value: 0 or more.
        degrees: of freedom, at least 1.
    """
    half = value / 2
    first = 1 if degrees % 2 else 2
    tail = math.erfc(math.sqrt(half)) if first == 1 else math.exp(-half)
    for lower in range(first, degrees, 2):
        tail += half ** (lower / 2) * math.exp(-half) / math.gamma(lower / 2 + 1)
    return tail
