from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.speed.figures import Latency, Spread, ratios, rotated

seconds = st.lists(st.floats(min_value=1e-6, max_value=1e3), min_size=1, max_size=300)


def test_percentiles_of_a_hundred_known_latencies() -> None:
    assert Latency.of([float(number) for number in range(100, 0, -1)]) == Latency(p50=50.0, p99=99.0, largest=100.0)


@given(seconds)
def test_at_most_one_in_a_hundred_is_above_p99_and_at_most_half_above_p50(values: Sequence[float]) -> None:
    latency = Latency.of(values)
    assert latency.p50 in values
    assert latency.p99 in values
    assert sum(value > latency.p99 for value in values) <= len(values) / 100
    assert sum(value > latency.p50 for value in values) <= len(values) / 2
    assert latency.p50 <= latency.p99 <= latency.largest == max(values)


def test_each_contender_has_each_place_once() -> None:
    orders = [rotated(["a", "b", "c", "d", "e"], alternation) for alternation in range(5)]
    assert orders[0] == ["a", "b", "c", "d", "e"]
    assert [sorted(order) for order in orders] == [["a", "b", "c", "d", "e"]] * 5
    assert all(len(set(places)) == 5 for places in zip(*orders, strict=True))
    assert rotated(["a", "b"], 2) == ["a", "b"]


def test_ratios_are_of_runs_in_the_same_alternation() -> None:
    alternations = [{"loop": 100.0, "system": 50.0}, {"loop": 10.0, "system": 9.0}, {"loop": 200.0, "system": 140.0}]
    spreads = ratios(alternations, "loop")
    assert spreads["loop"] == Spread(1.0, 1.0, 1.0)
    assert (spreads["system"].median, spreads["system"].low, spreads["system"].high) == pytest.approx((0.7, 0.5, 0.9))
