"""Days without drift are seldom watch or drift, and days with drift are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from core.drift import judging
from core.drift.distributions import Histogram, compare
from core.drift.documents import Light
from core.drift.judging import Finding, judge_inputs, judge_ng_rate, judge_scores, worst

CALIBRATION: dict[str, Any] = {"expected_false_reject_rate": 0.05, "confidence_interval": [0.03, 0.08]}
INPUTS: dict[str, Any] = {"brightness": [80.0, 160.0], "contrast": [10.0, 60.0], "sharpness": 0.2}
SAMPLES = st.integers(1, 5000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))
DAYS = 2000


def histogram(bins: NDArray[np.floating[Any]]) -> Histogram:
    return Histogram(
        *(each.astype(np.int64) for each in np.unique(np.floor(bins).astype(np.int64), return_counts=True))
    )


@given(SAMPLES)
def test_the_interval_is_that_of_clopper_and_pearson(sample: tuple[int, int]) -> None:
    count, of = sample
    low, high = judging.interval(count, of, 0.01)
    expected = stats.binomtest(count, of).proportion_ci(0.99, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@settings(max_examples=20)
@given(st.floats(0.001, 0.999), st.integers(1, 80))
def test_the_interval_misses_the_true_share_at_most_as_often_as_stated(share: float, of: int) -> None:
    intervals = [judging.interval(count, of, 0.01) for count in range(of + 1)]
    probabilities = stats.binom.pmf(np.arange(of + 1), of, share)
    missed = sum(
        probability
        for probability, (low, high) in zip(probabilities, intervals, strict=True)
        if not low <= share <= high
    )
    assert missed <= 0.01 + 1e-6


@pytest.mark.parametrize(("parts", "reference_parts"), [(50, 100), (300, 300), (3000, 1000)])
def test_independent_parts_without_drift_are_seldom_watch_and_hardly_ever_drift(
    parts: int, reference_parts: int
) -> None:
    random = np.random.default_rng(parts)
    lights: list[Light] = []
    for _ in range(DAYS):
        day, reference = (random.normal(0, 15, size) for size in (parts, reference_parts))
        comparison = compare(histogram(day), histogram(reference))
        assert comparison is not None
        measured = {
            "brightness": histogram(random.normal(120, 8, parts)),  # 5 deviations from either end
            "contrast": histogram(random.normal(35, 5, parts)),
        }
        findings = [
            judge_scores(comparison)[1],
            judge_ng_rate(int(random.binomial(parts, 0.05)), parts, CALIBRATION, None)[1],
            *judge_inputs(measured, INPUTS)[1],  # type: ignore[arg-type]
        ]
        lights.append(worst(findings)[0])
    # At most 20 of 2000 are expected to be watch by chance, and at most 2 drift.
    assert sum(light != "none" for light in lights) <= 35
    assert sum(light == "drift" for light in lights) <= 8


@pytest.mark.parametrize("parts", [200, 5000])
def test_scores_that_move_by_a_standard_deviation_are_drift(parts: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        comparison = compare(histogram(random.normal(15, 15, parts)), histogram(random.normal(0, 15, 300)))
        assert comparison is not None
        document, finding = judge_scores(comparison)
        assert finding.light == "drift"
        assert finding.reason is not None
        assert f"PSI {document.psi:.2f}" in finding.reason


def test_a_tiny_change_of_very_many_parts_is_no_drift() -> None:
    random = np.random.default_rng(0)
    comparison = compare(histogram(random.normal(1, 15, 400_000)), histogram(random.normal(0, 15, 100_000)))
    assert comparison is not None
    assert comparison.psi > comparison.psi_by_chance(1e-6)  # it is no chance
    assert judge_scores(comparison)[1].light == "none"


@given(SAMPLES)
def test_the_ng_rate_is_judged_by_its_whole_interval(sample: tuple[int, int]) -> None:
    ng, parts = sample
    document, finding = judge_ng_rate(ng, parts, CALIBRATION, None)
    low, high = document.interval
    expected = "above" if low > 0.16 else "below" if high < 0.015 else "within"
    assert document.position == expected
    assert (finding.light, finding.reason is None) == (("none", True) if expected == "within" else ("watch", False))


def test_an_ng_rate_as_on_the_reference_days_is_expected() -> None:
    reference = judging.rate(400, 1000)
    assert judge_ng_rate(390, 1000, CALIBRATION, None)[0].position == "above"
    assert judge_ng_rate(390, 1000, CALIBRATION, reference)[0].position == "within"
    assert judge_ng_rate(1000, 1000, None, reference)[0].position == "above"
    assert judge_ng_rate(5, 1000, None, reference)[0].position == "below"
    assert judge_ng_rate(1000, 1000, None, None)[0].position is None


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 3000))
def test_images_outside_the_range_are_counted_on_their_side(below: int, above: int, inside: int) -> None:
    measured = {"contrast": Histogram.of([(9, below), (10, inside), (60, above)])}
    measured = {"contrast": Histogram.of([(bin_, count) for bin_, count in measured["contrast"].items() if count])}
    documents, findings = judge_inputs(measured, INPUTS)  # type: ignore[arg-type]
    contrast = documents["contrast"]
    assert (contrast.below, contrast.above, contrast.measured) == (below, above, below + above + inside)
    assert contrast.outside is not None
    assert contrast.outside.count == below + above
    light = worst(findings)[0]
    low = stats.binomtest(below + above, contrast.measured).proportion_ci(1 - 0.0002, method="exact").low
    assert (light == "drift") == (low > judging.OUTSIDE_DRIFT)
    assert (light == "none") <= (contrast.outside.interval[0] <= judging.OUTSIDE_WATCH)


def test_without_ranges_nothing_is_outside() -> None:
    documents, findings = judge_inputs({"brightness": Histogram.of([(3, 100)])}, {})
    assert documents["brightness"].outside is None
    assert documents["brightness"].quantiles is not None
    assert worst(findings) == ("none", [])


def test_the_worst_light_counts_and_its_reasons_come_first() -> None:
    findings = [Finding("none", "c"), Finding("watch", "b"), Finding("none"), Finding("drift", "a")]
    assert worst(findings) == ("drift", ["a", "b", "c"])
    assert worst([]) == ("none", [])
