"""The false-reject rate to expect at any threshold agrees with the calibration, and with scipy."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core.vision.calibration.calibration import calibrate
from core.vision.calibration.expected_rate import expected_rate

samples = st.lists(st.floats(-1e6, 1e6), min_size=19, max_size=80, unique=True).map(sorted)


@given(samples, st.booleans(), st.sampled_from([None, 2, 5]), st.sampled_from([0.1, 0.25]))
def test_at_the_calibrated_threshold_it_is_that_of_the_calibration(
    scores: list[float], cross_fitted: bool, group_size: int | None, rate: float
) -> None:
    groups = None if group_size is None else [number // group_size for number in range(len(scores))]
    calibration = calibrate(scores, rate, groups=groups, cross_fitted=cross_fitted)
    expected = expected_rate(calibration, scores, calibration.threshold)
    assert expected.rate == pytest.approx(calibration.expected_false_reject_rate)
    assert expected.interval == pytest.approx(calibration.confidence_interval, rel=1e-5, abs=1e-9)


@given(samples, st.integers(1, 79), st.floats(0.5, 0.99))
def test_between_two_scores_it_is_the_beta_distribution_of_the_rank(
    scores: list[float], rank: int, confidence: float
) -> None:
    rank = min(rank, len(scores))
    calibration = calibrate(scores, 0.1, confidence)
    threshold = float(np.nextafter(scores[rank - 1], np.inf))
    expected = expected_rate(calibration, scores, threshold)
    distribution = stats.beta(len(scores) + 1 - rank, rank)
    assert expected.rate == pytest.approx(distribution.mean())
    assert expected.interval == pytest.approx(distribution.interval(confidence), rel=1e-5, abs=1e-9)


def test_a_threshold_below_all_scores_may_reject_everything() -> None:
    scores = np.linspace(1, 2, 99).tolist()
    expected = expected_rate(calibrate(scores), scores, 0.5)
    assert (expected.rate, expected.interval[1]) == (1, 1)
    assert expected.interval[0] == pytest.approx(0.025 ** (1 / 99))


def test_a_higher_threshold_never_rejects_more() -> None:
    scores = sorted(np.random.default_rng(0).gamma(2.0, size=60).tolist())
    calibration = calibrate(scores)
    rates = [expected_rate(calibration, scores, threshold) for threshold in np.linspace(0, 8, 100).tolist()]
    for lower, higher in pairwise(rates):
        assert lower.rate >= higher.rate
        assert lower.interval[0] >= higher.interval[0] - 1e-9
        assert lower.interval[1] >= higher.interval[1] - 1e-9
