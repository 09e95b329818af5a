"""A threshold keeps its promise, says what it means, and is refused where the sample cannot carry it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.calibration.calibration import SampleTooSmall, calibrate, check_expected_rate, required_sample_size
from core.vision.calibration.record import Calibration

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
    assert required_sample_size(rate) == least
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


@given(st.lists(finite, min_size=19, max_size=100), st.sampled_from([0.051, 0.1, 0.3, 0.9]))
def test_the_review_threshold_is_what_the_same_rule_gives_for_its_rate(scores: list[float], rate: float) -> None:
    found = calibrate(scores, review_rate=rate)
    alone = calibrate(scores, rate)
    assert found.review is not None
    assert found.review.threshold == alone.threshold <= found.threshold
    assert found.review.expected_rate == alone.expected_false_reject_rate
    assert found.review.confidence_interval == alone.confidence_interval
    assert found.model_copy(update={"review": None}) == calibrate(scores)


@pytest.mark.parametrize("rate", [0.05, 0.01, 1.0, float("nan")])
def test_a_review_rate_that_leaves_no_band_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="the review rate must lie between"):
        calibrate(np.linspace(0, 1, 30), review_rate=rate)


def test_a_calibration_that_knows_no_review_and_no_groups_still_loads() -> None:
    whole = calibrate(np.linspace(0, 1, 30)).model_dump(mode="json")
    old = {name: value for name, value in whole.items() if name not in ("review", "groups", "effective_sample_size")}
    assert Calibration.model_validate(old).model_dump(mode="json") == whole


def test_groups_widen_the_interval_and_nothing_else() -> None:
    scores = np.random.default_rng(0).gamma(2.0, size=120)
    alone = calibrate(scores)
    same = calibrate(scores, groups=range(120))
    assert same == alone.model_copy(update={"groups": 120})
    shots = calibrate(scores, groups=[index // 4 for index in range(120)])
    assert shots.groups == 30
    assert shots.effective_sample_size == pytest.approx(30)
    assert shots.threshold == alone.threshold
    assert shots.expected_false_reject_rate == alone.expected_false_reject_rate
    assert shots.confidence_interval[0] < alone.confidence_interval[0]
    assert shots.confidence_interval[1] > alone.confidence_interval[1]
    uneven = calibrate(scores, groups=[0] * 91 + list(range(1, 30)))
    assert uneven.groups == 30
    assert uneven.confidence_interval[1] > shots.confidence_interval[1]


@pytest.mark.parametrize("correlation", [1.0, 0.7])
def test_the_interval_of_dependent_parts_covers_as_often_as_it_says(correlation: float) -> None:
    random = np.random.default_rng(0)
    groups = [index // 4 for index in range(160)]
    covered = 0
    for _ in range(300):
        shared = np.repeat(random.normal(size=40), 4)
        scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * random.normal(size=160)
        found = calibrate(scores, 0.1, groups=groups)
        share = (random.normal(size=4000) >= found.threshold).mean()
        covered += found.confidence_interval[0] <= share <= found.confidence_interval[1]
    assert covered / 300 > 0.93


@pytest.mark.parametrize(("n", "rate", "fresh"), [(60, 0.05, 100), (300, 0.1, 40), (40, 0.2, 400)])
def test_the_promise_to_unchanged_parts_is_kept_as_often_as_it_says(n: int, rate: float, fresh: int) -> None:
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(600):
        found = calibrate(random.gamma(2.0, size=n), rate)
        broken += (
            check_expected_rate(found, int((random.gamma(2.0, size=fresh) >= found.threshold).sum()), fresh).verdict
            == "broken"
        )
    assert broken / 600 < 0.07


def test_parts_that_have_changed_break_the_promise() -> None:
    random = np.random.default_rng(0)
    found = calibrate(random.normal(size=200))
    for shift in (1.0, -1.0):
        fresh = random.normal(shift, size=500)
        outcome = check_expected_rate(found, int((fresh >= found.threshold).sum()), 500)
        assert (outcome.verdict, outcome.of) == ("broken", 500)
        assert outcome.p_value < 0.05
        assert "of 500 good parts are rejected" in outcome.sentence


@given(st.integers(19, 200), st.integers(1, 300), st.data())
def test_the_verdict_the_range_and_the_p_value_agree(n: int, of: int, data: st.DataObject) -> None:
    rejected = data.draw(st.integers(0, of))
    outcome = check_expected_rate(calibrate(np.arange(n, dtype=np.float64)), rejected, of)
    low, high = outcome.expected
    assert 0 <= low <= high <= of
    assert (outcome.verdict == "kept") == (low <= rejected <= high) == (outcome.p_value >= 1 - 0.95)


def test_shots_of_few_parts_break_no_promise_that_as_many_parts_would() -> None:
    found = calibrate(np.arange(200, dtype=np.float64))
    assert check_expected_rate(found, 20, 100).verdict == "broken"
    assert check_expected_rate(found, 20, 100, groups=[index // 20 for index in range(100)]).verdict == "kept"


@pytest.mark.parametrize(("rejected", "of"), [(0, 0), (-1, 3), (4, 3)])
def test_counts_that_make_no_sense_are_refused(rejected: int, of: int) -> None:
    with pytest.raises(ValueError, match="make no sense"):
        check_expected_rate(calibrate(np.arange(19, dtype=np.float64)), rejected, of)
