"""The only place that decides verdicts.

Two functions have a twin in SQL: `decide_verdict` in `core.models.thresholds.verdict_sql`, and `reviewed_verdict` in
`core.inspection.review_decisions.decisions`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

Verdict = Literal["ok", "ng", "review"]

AGREEING_REVIEWERS = 2
"""The number of reviewers who must agree, if a recipe asks for a second review."""


class Opinion(Protocol):
    """The parts of a review that count for the verdict.

    `second_review` says whether the recipe asked for a second review when the review was added.
    """

    @property
    def reviewer(self) -> str: ...

    @property
    def verdict(self) -> Verdict: ...

    @property
    def second_review(self) -> bool: ...


def decide_verdict(
    anomaly_score: float, threshold: float, review_threshold: float | None = None, reasons: Sequence[str] = ()
) -> Verdict:
    """Return the machine's verdict on a finite score.

    If there are reasons not to trust the score (`core.vision.input.input_checks.reasons`), the verdict is `review`.
    Otherwise it is `ng` from the threshold up, `review` from the review threshold up if there is one, and else `ok`.
    """
    if reasons:
        return "review"
    if is_anomaly(anomaly_score, threshold):
        return "ng"
    if review_threshold is not None and anomaly_score >= review_threshold:
        return "review"
    return "ok"


def is_anomaly(anomaly_score: float, threshold: float) -> bool:
    """Return whether a finite score reaches the threshold, even if there are reasons not to trust the score."""
    return anomaly_score >= threshold


def reviewed_verdict(reviews: Sequence[Opinion]) -> Verdict | None:
    """Return the verdict of the reviews of an inspection: `ok`, `ng`, or `review` while they do not decide.

    The newest review decides. But if the recipe asked for a second review when it was added, the majority decides, and
    at least two reviewers must agree. So one review does not decide, two reviewers who agree do, and if two disagree, a
    third decides. Of each reviewer the newest review counts; names that differ only in case are the same reviewer.

    Args:
        reviews: all that are not retracted, oldest first.

    Returns:
        None without reviews.
    """
    if not reviews:
        return None
    if not reviews[-1].second_review:
        return reviews[-1].verdict
    newest = {review.reviewer.casefold(): review.verdict for review in reviews}
    [(verdict, number), *others] = Counter(newest.values()).most_common()
    is_majority = not others or number > others[0][1]
    return verdict if is_majority and number >= AGREEING_REVIEWERS else "review"


def effective_verdict(machine: Verdict | None, reviews: Sequence[Opinion]) -> Verdict | None:
    """Return the verdict that counts: that of the reviews, or the machine's if there are none."""
    return reviewed_verdict(reviews) or machine


def part_verdict(views: Iterable[tuple[bool, Verdict | None]]) -> Verdict | None:
    """Return the verdict on a part from the images of its views.

    `ng` if any view is `ng`. Otherwise `review` if any view is `review`, or failed or was cancelled and so has no
    verdict. Otherwise None while any view is in flight, and `ok` once none is.

    Args:
        views: for each view, whether its inspection is final, and its verdict.
    """
    verdicts = {verdict or ("review" if final else None) for final, verdict in views}
    worst_first: tuple[Verdict | None, ...] = ("ng", "review", None, "ok")
    return next((verdict for verdict in worst_first if verdict in verdicts), None)
