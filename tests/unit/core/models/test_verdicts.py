"""The comparison of a score with the thresholds, and what reviews decide."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.models.verdicts import Verdict, decide_verdict, effective_verdict, reviewed_verdict

OK_NG: tuple[Verdict, ...] = ("ok", "ng")

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


class GivenReview(NamedTuple):
    reviewer: str
    verdict: Verdict
    second_review: bool = True


histories = st.lists(
    st.builds(GivenReview, st.sampled_from(["Jo", "JO", "Ann", "Kim", "Straße", "STRASSE"]), st.sampled_from(OK_NG),
              st.booleans()),
    max_size=8,
)  # fmt: skip


@given(st.sampled_from([None, "ok", "ng", "review"]))
def test_without_reviews_the_verdict_of_the_machine_counts(machine: Verdict | None) -> None:
    assert reviewed_verdict([]) is None
    assert effective_verdict(machine, []) == machine


@given(histories, st.sampled_from(OK_NG))
def test_without_a_second_review_the_newest_review_decides(history: list[GivenReview], newest: Verdict) -> None:
    assert reviewed_verdict([*history, GivenReview("Jo", newest, second_review=False)]) == newest


@given(histories, st.sampled_from([None, *OK_NG, "review"]))
def test_a_second_review_needs_a_majority_of_at_least_two_people(
    history: list[GivenReview], machine: Verdict | None
) -> None:
    history.append(GivenReview("Jo", "ok"))
    newest = {review.reviewer.lower().replace("ß", "ss"): review.verdict for review in history}
    ok, ng = (list(newest.values()).count(verdict) for verdict in OK_NG)
    expected = "review" if ok == ng or max(ok, ng) < 2 else "ok" if ok > ng else "ng"
    assert effective_verdict(machine, history) == expected


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("Jo ok", "review"),
        ("Jo ok, Ann ok", "ok"),
        ("Jo ok, Ann ng", "review"),
        ("Jo ok, Ann ng, Kim ng", "ng"),
        ("Jo ok, jo ok", "review"),  # the same person twice
        ("Jo ok, Ann ng, Jo ng", "ng"),  # a person who changes their mind
        ("Jo ok, Ann ok, Kim ng, Sam ng", "review"),
    ],
)
def test_how_second_reviews_decide(history: str, expected: Verdict) -> None:
    pairs = [review.split() for review in history.split(", ")]
    assert reviewed_verdict([GivenReview(name, "ok" if said == "ok" else "ng") for name, said in pairs]) == expected
