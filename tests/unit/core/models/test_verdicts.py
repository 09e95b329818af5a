"""The comparison of a score with the thresholds."""

from hypothesis import given
from hypothesis import strategies as st

from core.models.verdicts import decide_verdict

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.none() | finite)
def test_a_verdict_follows_the_thresholds(score: float, threshold: float, review: float | None) -> None:
    verdict = decide_verdict(score, threshold, review)
    assert (verdict == "ng") == (score >= threshold)
    assert (verdict == "review") == (review is not None and review <= score < threshold)


def test_a_score_at_the_threshold_is_ng() -> None:
    assert decide_verdict(0.5, 0.5) == "ng"
    assert decide_verdict(0.4, 0.5, 0.4) == "review"


@given(finite, finite, st.none() | finite)
def test_an_image_that_failed_an_input_check_needs_review(score: float, threshold: float, review: float | None) -> None:
    assert decide_verdict(score, threshold, review, ["input_dark"]) == "review"
