"""Two histograms are compared as the literature says, and chance alone seldom exceeds the stated level."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from core.drift.distributions import (
    Comparison,
    Histogram,
    chi_squared_quantile,
    chi_squared_tail,
    compare,
    quantile_edges,
)

HISTOGRAMS = st.dictionaries(st.integers(-50, 50), st.integers(1, 300), min_size=1, max_size=40).map(
    lambda counts: Histogram.of([*counts.items()])
)
SHIFTS = st.integers(-1000, 1000)
SIMULATIONS = 400


def values_of(histogram: Histogram) -> NDArray[np.int64]:
    return np.repeat(histogram.bins, histogram.counts)


def shifted(histogram: Histogram, by: int) -> Histogram:
    return Histogram(histogram.bins + by, histogram.counts)


@given(HISTOGRAMS)
def test_a_histogram_does_not_differ_from_itself(histogram: Histogram) -> None:
    comparison = compare(histogram, histogram)
    assert comparison is None or (comparison.psi, comparison.ks) == (0, 0)
    assert comparison is None or comparison.shares == comparison.reference_shares


@given(HISTOGRAMS, HISTOGRAMS, SHIFTS)
def test_only_the_order_of_the_bins_matters(histogram: Histogram, reference: Histogram, by: int) -> None:
    comparison, other = compare(histogram, reference), compare(shifted(histogram, by), shifted(reference, by))
    assert (comparison is None) == (other is None)
    if comparison is not None and other is not None:
        assert (comparison.psi, comparison.ks, comparison.shares) == (other.psi, other.ks, other.shares)


@given(HISTOGRAMS, HISTOGRAMS)
def test_the_statistics_are_those_of_the_binned_values(histogram: Histogram, reference: Histogram) -> None:
    comparison = compare(histogram, reference)
    if comparison is None:
        return
    exact = stats.ks_2samp(values_of(histogram), values_of(reference), method="asymp").statistic
    assert comparison.ks == pytest.approx(exact)
    assert comparison.psi >= 0
    shares, reference_shares = (
        np.histogram(values_of(each), [-math.inf, *(edge + 0.5 for edge in comparison.edges), math.inf])[0] / each.total
        for each in (histogram, reference)
    )
    assert comparison.shares == pytest.approx(shares)
    assert comparison.reference_shares == pytest.approx(reference_shares)
    assert sum(comparison.shares) == pytest.approx(1)


@given(HISTOGRAMS)
def test_quantile_bins_are_few_and_none_is_empty(reference: Histogram) -> None:
    edges = quantile_edges(reference)
    assert edges == sorted(set(edges))
    assert len(edges) < 10
    counts = reference.within(edges)
    assert counts.sum() == reference.total
    assert not edges or counts.min() > 0


def test_quantile_bins_of_distinct_values_are_equally_full() -> None:
    reference = Histogram.of([(bin_, 1) for bin_ in range(1000)])
    assert reference.within(quantile_edges(reference)).tolist() == [100] * 10
    few = Histogram.of([(bin_, 1) for bin_ in range(35)])
    assert few.within(quantile_edges(few)).tolist() == [12, 12, 11]


@pytest.mark.parametrize("counts", [[(5, 1000)], [(5, 19)], [(1, 9), (2, 10)]])
def test_too_few_or_equal_values_are_no_reference(counts: list[tuple[int, int]]) -> None:
    reference = Histogram.of(counts)
    assert compare(Histogram.of([(5, 100)]), reference) is None


@given(HISTOGRAMS, st.lists(st.floats(0.001, 1), min_size=2, max_size=5).map(sorted))
def test_quantiles_are_in_order_and_within_the_values(histogram: Histogram, shares: list[float]) -> None:
    found = [histogram.quantile(share) for share in shares]
    assert found == sorted(found)
    assert set(found) <= set(histogram.bins.tolist())
    assert found == np.quantile(values_of(histogram), shares, method="inverted_cdf").tolist()


@given(st.integers(1, 30), st.floats(0.5, 0.99999))
def test_quantiles_of_chi_squared_are_exact(degrees: int, probability: float) -> None:
    assert chi_squared_quantile(probability, degrees) == pytest.approx(stats.chi2.ppf(probability, degrees), rel=1e-9)
    value = float(stats.chi2.ppf(probability, degrees))
    assert chi_squared_tail(value, degrees) == pytest.approx(1 - probability, rel=1e-6)


def sample(random: np.random.Generator, size: int, spread: float) -> Histogram:
    """A histogram of log-normal scores in bins of one percent."""
    bins = np.floor(random.normal(0, spread, size) / math.log1p(0.01)).astype(np.int64)
    return Histogram(*(each.astype(np.int64) for each in np.unique(bins, return_counts=True)))


@pytest.mark.parametrize("spread", [0.03, 0.3])
@pytest.mark.parametrize(("parts", "reference_parts"), [(50, 50), (200, 60), (2000, 400), (100, 5000)])
def test_chance_exceeds_the_level_of_each_statistic_about_as_often_as_stated(
    spread: float, parts: int, reference_parts: int
) -> None:
    random = np.random.default_rng(parts + reference_parts)
    comparisons: list[Comparison] = []
    while len(comparisons) < SIMULATIONS:
        comparison = compare(sample(random, parts, spread), sample(random, reference_parts, spread))
        assert comparison is not None
        comparisons.append(comparison)
    # With a probability of 2 %, 8 of 400 are expected; 20 or more have a probability below 0.0002.
    assert sum(each.psi > each.psi_by_chance(0.02) for each in comparisons) < 20
    assert sum(each.ks > each.ks_by_chance(0.02) for each in comparisons) < 20
    assert sum(each.psi > each.psi_by_chance(0.2) for each in comparisons) > 20  # 80 are expected: it is no idle level
