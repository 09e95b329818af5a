"""A distribution exports what a histogram of Prometheus' client does, and keeps a bounded number of series."""

import threading

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from core.metrics import Distribution, exposition

BOUNDS = (0.1, 0.5, 1.0)
NUMBERS = st.lists(st.floats(-2, 2) | st.sampled_from(BOUNDS), max_size=20)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in exposition(registry).decode().splitlines() if "_sum" not in line]


@given(groups=st.lists(st.tuples(st.sampled_from("ab"), NUMBERS), max_size=5))
def test_it_exports_what_a_histogram_does(groups: list[tuple[str, list[float]]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    distribution = Distribution("seconds", "Text.", BOUNDS, ["stage"], registry=ours)
    histogram = Histogram("seconds", "Text.", ["stage"], buckets=BOUNDS, registry=theirs)
    for stage, numbers in groups:
        distribution.labels(stage).add(numbers)
        for number in numbers:
            histogram.labels(stage).observe(number)
        if not numbers:
            histogram.labels(stage)
    assert sorted(lines(ours)) == sorted(lines(theirs))
    for stage in "ab":
        ours_sum, theirs_sum = (
            registry.get_sample_value("seconds_sum", {"stage": stage}) for registry in (ours, theirs)
        )
        assert (ours_sum is None) == (theirs_sum is None)
        assert abs((ours_sum or 0) - (theirs_sum or 0)) < 1e-9


def test_a_series_that_was_not_used_for_the_longest_time_is_dropped() -> None:
    registry = CollectorRegistry()
    distribution = Distribution("scores", "Text.", BOUNDS, ["version"], most=2, registry=registry)
    for version in ("1", "2", "1", "3"):
        distribution.labels(version).add([0.2])
    counts = {version: registry.get_sample_value("scores_count", {"version": version}) for version in "123"}
    assert counts == {"1": 2, "2": None, "3": 1}


def test_threads_lose_no_value() -> None:
    registry = CollectorRegistry()
    distribution = Distribution("seconds", "Text.", BOUNDS, registry=registry)

    def add() -> None:
        for _ in range(500):
            distribution.labels().add([0.5] * 10)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.get_sample_value("seconds_count") == 20_000
    assert registry.get_sample_value("seconds_bucket", {"le": "0.5"}) == 20_000
    assert registry.get_sample_value("seconds_sum") == 10_000
