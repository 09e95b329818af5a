"""The comparison that decides a verdict, in its one place."""

from typing import Literal

Verdict = Literal["ok", "ng", "review"]


def decide(anomaly_score: float, threshold: float, review_threshold: float | None = None) -> Verdict:
    """The machine's verdict on one finite score.

    `ng` from the threshold on; `review` from the review threshold on, where one is set; `ok` below.
    """
    if anomaly_score >= threshold:
        return "ng"
    if review_threshold is not None and anomaly_score >= review_threshold:
        return "review"
    return "ok"
