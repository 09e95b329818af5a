"""A threshold keeps its promise, says what it means, and is refused where the sample cannot carry it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.calibration import SampleTooSmall, calibrate, needed

finite = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(finite, min_size=19, max_size=200))
def test_at_most_the_promised_rank_is_rejected(scores: list[float]) -> None:
    found = calibrate(scores)
    n = len(scores)
    rejected = sum(score >= found.threshold for score in scores)
    # Split conformal prediction leaves at least ⌈0.95 (n + 1)⌉ of the sample below the threshold.
    assert n - rejected >= 0.95 * (n + 1) - 1e-9
    assert found.sample_size == n
    assert found.expected_false_reject_rate <= 0.05 + 1e-12
    low, high = found.confidence_interval
    assert 0 <= low <= found.expected_false_reject_rate <= high <= 1


@given(st.lists(finite, min_size=19, max_size=60))
def test_the_threshold_is_the_tightest_that_keeps_its_rank_ok(scores: list[float]) -> None:
    threshold = calibrate(scores).threshold
    assert np.nextafter(threshold, -np.inf) in scores


def test_equal_scores_are_not_rejected() -> None:
    assert calibrate([0.25] * 30).threshold > 0.25


@pytest.mark.parametrize(("rate", "least"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.2, 4), (0.001, 999)])
def test_a_sample_one_too_small_is_refused_with_the_number_needed(rate: float, least: int) -> None:
    scores = np.linspace(0, 1, least)
    assert needed(rate) == least
    assert calibrate(scores, rate).sample_size == least
    with pytest.raises(SampleTooSmall, match=f"at least {least} held-out good parts"):
        calibrate(scores[1:], rate)


def test_new_good_parts_are_rejected_as_often_as_expected_and_within_the_interval() -> None:
    random = np.random.default_rng(0)
    shares, covered = [], 0
    for _ in range(400):
        found = calibrate(random.gamma(2.0, size=60))
        share = (random.gamma(2.0, size=4000) >= found.threshold).mean()
        shares.append(share)
        covered += found.confidence_interval[0] <= share <= found.confidence_interval[1]
    assert np.mean(shares) == pytest.approx(found.expected_false_reject_rate, abs=0.004)
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        calibrate([0.1] * 30 + [wrong])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate([0.1] * 30, rate)
