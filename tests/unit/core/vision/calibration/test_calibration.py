"""A threshold keeps the requested false-reject rate, comes with its expected rate, and needs a large enough sample."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.calibration.calibration import (
    SampleTooSmall,
    calibrate,
    check_expected_rate,
    effective_sample_size,
    required_sample_size,
)
from core.vision.calibration.record import Calibration

finite = st.floats(0, 1e6, allow_nan=False)


@given(st.lists(finite, min_size=19, max_size=200))
def test_at_most_the_requested_share_is_rejected(scores: list[float]) -> None:
    calibration = calibrate(scores)
    n = len(scores)
    rejected = sum(score >= calibration.threshold for score in scores)
    # Split conformal prediction leaves at least ⌈0.95 (n + 1)⌉ of the sample below the threshold.
    assert n - rejected >= 0.95 * (n + 1) - 1e-9
    assert calibration.sample_size == n
    assert calibration.expected_false_reject_rate <= 0.05 + 1e-12
    low, high = calibration.confidence_interval
    assert 0 <= low <= calibration.expected_false_reject_rate <= high <= 1


@given(st.lists(finite, min_size=19, max_size=60))
def test_the_threshold_is_the_lowest_that_keeps_the_rank_below_it(scores: list[float]) -> None:
    threshold = calibrate(scores).threshold
    assert np.nextafter(threshold, -np.inf) in scores


def test_equal_scores_are_not_rejected() -> None:
    assert calibrate([0.25] * 30).threshold > 0.25


@pytest.mark.parametrize(("rate", "minimum"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1), (0.2, 4), (0.001, 999)])
def test_a_sample_that_is_one_too_small_is_refused_with_the_number_needed(rate: float, minimum: int) -> None:
    scores = np.linspace(0, 1, minimum)
    assert required_sample_size(rate) == minimum
    assert calibrate(scores, rate).sample_size == minimum
    with pytest.raises(SampleTooSmall, match=f"at least {minimum} held-out good parts"):
        calibrate(scores[1:], rate)


def test_new_good_parts_are_rejected_as_often_as_expected_and_within_the_interval() -> None:
    random = np.random.default_rng(0)
    shares, covered = [], 0
    for _ in range(400):
        calibration = calibrate(random.gamma(2.0, size=60))
        share = (random.gamma(2.0, size=4000) >= calibration.threshold).mean()
        shares.append(share)
        covered += calibration.confidence_interval[0] <= share <= calibration.confidence_interval[1]
    assert np.mean(shares) == pytest.approx(calibration.expected_false_reject_rate, abs=0.004)
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        calibrate([0.1] * 30 + [value])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate([0.1] * 30, rate)


@given(st.lists(finite, min_size=19, max_size=100), st.sampled_from([0.051, 0.1, 0.3, 0.9]))
def test_the_review_threshold_is_what_the_same_rule_gives_for_its_rate(scores: list[float], rate: float) -> None:
    calibration = calibrate(scores, review_rate=rate)
    alone = calibrate(scores, rate)
    assert calibration.review is not None
    assert calibration.review.threshold == alone.threshold <= calibration.threshold
    assert calibration.review.expected_rate == alone.expected_false_reject_rate
    assert calibration.review.confidence_interval == alone.confidence_interval
    assert calibration.model_copy(update={"review": None}) == calibrate(scores)


@pytest.mark.parametrize("rate", [0.05, 0.01, 1.0, float("nan")])
def test_a_review_rate_that_leaves_no_band_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="the review rate must be between"):
        calibrate(np.linspace(0, 1, 30), review_rate=rate)


def test_an_old_calibration_without_review_and_groups_still_loads() -> None:
    current = calibrate(np.linspace(0, 1, 30)).model_dump(mode="json")
    old = {name: value for name, value in current.items() if name not in ("review", "groups", "effective_sample_size")}
    assert Calibration.model_validate(old).model_dump(mode="json") == current


def test_groups_widen_the_interval_and_nothing_else() -> None:
    scores = np.random.default_rng(0).gamma(2.0, size=120)
    alone = calibrate(scores)
    same = calibrate(scores, groups=range(120))
    assert same == alone.model_copy(update={"groups": 120})
    grouped = calibrate(scores, groups=[index // 4 for index in range(120)])
    assert grouped.groups == 30
    assert grouped.effective_sample_size == pytest.approx(30)
    assert grouped.threshold == alone.threshold
    assert grouped.expected_false_reject_rate == alone.expected_false_reject_rate
    assert grouped.confidence_interval[0] < alone.confidence_interval[0]
    assert grouped.confidence_interval[1] > alone.confidence_interval[1]
    uneven = calibrate(scores, groups=[0] * 91 + list(range(1, 30)))
    assert uneven.groups == 30
    assert uneven.confidence_interval[1] > grouped.confidence_interval[1]


@pytest.mark.parametrize("correlation", [1.0, 0.7])
def test_the_interval_of_dependent_parts_has_its_stated_coverage(correlation: float) -> None:
    random = np.random.default_rng(0)
    groups = [index // 4 for index in range(160)]
    covered = 0
    for _ in range(300):
        shared = np.repeat(random.normal(size=40), 4)
        scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * random.normal(size=160)
        calibration = calibrate(scores, 0.1, groups=groups)
        share = (random.normal(size=4000) >= calibration.threshold).mean()
        covered += calibration.confidence_interval[0] <= share <= calibration.confidence_interval[1]
    assert covered / 300 > 0.93


@pytest.mark.parametrize(("n", "rate", "new_parts"), [(60, 0.05, 100), (300, 0.1, 40), (40, 0.2, 400)])
def test_the_expected_rate_of_unchanged_parts_holds_with_the_stated_confidence(
    n: int, rate: float, new_parts: int
) -> None:
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(600):
        calibration = calibrate(random.gamma(2.0, size=n), rate)
        rejected = int((random.gamma(2.0, size=new_parts) >= calibration.threshold).sum())
        broken += check_expected_rate(calibration, rejected, new_parts).verdict == "broken"
    assert broken / 600 < 0.07


def test_the_check_finds_parts_that_have_changed() -> None:
    random = np.random.default_rng(0)
    calibration = calibrate(random.normal(size=200))
    for shift in (1.0, -1.0):
        changed = random.normal(shift, size=500)
        outcome = check_expected_rate(calibration, int((changed >= calibration.threshold).sum()), 500)
        assert (outcome.verdict, outcome.good_parts) == ("broken", 500)
        assert outcome.p_value < 0.05
        assert "of 500 good parts are rejected" in outcome.summary


@given(st.integers(19, 200), st.integers(1, 300), st.data())
def test_the_verdict_the_range_and_the_p_value_agree(n: int, good_parts: int, data: st.DataObject) -> None:
    rejected = data.draw(st.integers(0, good_parts))
    outcome = check_expected_rate(calibrate(np.arange(n, dtype=np.float64)), rejected, good_parts)
    low, high = outcome.expected
    assert 0 <= low <= high <= good_parts
    assert (outcome.verdict == "kept") == (low <= rejected <= high) == (outcome.p_value >= 1 - 0.95)


def test_images_of_few_parts_pass_a_check_that_as_many_parts_would_fail() -> None:
    calibration = calibrate(np.arange(200, dtype=np.float64))
    assert check_expected_rate(calibration, 20, 100).verdict == "broken"
    assert check_expected_rate(calibration, 20, 100, groups=[index // 20 for index in range(100)]).verdict == "kept"


@pytest.mark.parametrize(("rejected", "good_parts"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(rejected: int, good_parts: int) -> None:
    with pytest.raises(ValueError, match="are impossible"):
        check_expected_rate(calibrate(np.arange(19, dtype=np.float64)), rejected, good_parts)


@pytest.mark.parametrize(
    ("groups", "worth"), [([1, 2, 3], 3), ([1, 1, 2, 2], 2), ([1, 1, 1, 2], 1.6), ([5], 1), ([5, 5, 5], 1)]
)
def test_the_effective_sample_size_counts_parts(groups: list[int], worth: float) -> None:
    assert effective_sample_size(groups) == pytest.approx(worth)


@given(st.lists(finite, min_size=19, max_size=60), st.lists(finite, min_size=1, max_size=20))
def test_defective_parts_may_only_raise_the_threshold_and_none_is_missed_for_it(
    good: list[float], defective: list[float]
) -> None:
    by_good, by_both = calibrate(good), calibrate(good, defective=np.array(defective))
    assert by_both.threshold >= by_good.threshold
    caught = [sum(score >= each.threshold for score in defective) for each in (by_good, by_both)]
    assert caught[0] == caught[1]
    assert by_both.expected_false_reject_rate <= by_good.expected_false_reject_rate
    assert by_both.percentile >= 95 - 1e-9
    assert (by_good.defective, by_both.defective) == (None, len(defective))


def test_the_threshold_is_halfway_to_the_lowest_score_of_a_caught_defective_part() -> None:
    good = np.arange(1, 101, dtype=float)  # 5 % of them: above 96
    for lowest, expected in ((97.5, 96), (99.5, 97), (500.0, 98)):
        calibration = calibrate(good, defective=np.array([3.0, lowest, 900.0]))
        assert calibration.threshold == np.nextafter(expected, np.inf)
        assert calibration.expected_false_reject_rate == pytest.approx((101 - expected) / 101)
    assert calibrate(good, defective=np.array([3.0])).threshold == calibrate(good).threshold
