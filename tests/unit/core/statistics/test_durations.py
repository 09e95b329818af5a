"""Quantiles of binned durations."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.statistics.durations import GROWTH, milliseconds, quantile


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=50), st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_a_quantile_is_at_most_five_percent_off(durations: list[float], share: float) -> None:
    bins = Counter(math.floor(math.log(duration) / math.log(GROWTH)) for duration in durations)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert quantile(bins, share) == pytest.approx(exact, rel=0.05)


def test_without_durations_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None


def test_the_middle_of_a_bin_is_between_its_edges() -> None:
    assert all(GROWTH**number < milliseconds(number) < GROWTH ** (number + 1) for number in range(200))
