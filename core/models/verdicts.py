"""The comparison that decides a verdict, in its one place; `core.models.thresholds.verdict_sql` is its SQL."""

from collections.abc import Iterable, Sequence
from typing import Literal

Verdict = Literal["ok", "ng", "review"]


def decide_verdict(
    anomaly_score: float, threshold: float, review_threshold: float | None = None, reasons: Sequence[str] = ()
) -> Verdict:
    """The machine's verdict on one finite score.

    `review` whatever the score, where there are reasons not to trust it
    (`core.vision.input.input_checks.reasons`). Else
    `ng` from the threshold on, `review` from the review threshold on, where one is set, and `ok` below.
    """
    if reasons:
        return "review"
    if is_anomaly(anomaly_score, threshold):
        return "ng"
    if review_threshold is not None and anomaly_score >= review_threshold:
        return "review"
    return "ok"


def is_anomaly(anomaly_score: float, threshold: float) -> bool:
    """Whether a finite score reaches the threshold, whatever speaks against trusting it."""
    return anomaly_score >= threshold


def effective_verdict(machine: Verdict | None, reviewed: Sequence[Verdict]) -> Verdict | None:
    """What counts of a part: what people said last, else what the machine said."""
    return reviewed[-1] if reviewed else machine


def part_verdict(views: Iterable[tuple[bool, Verdict | None]]) -> Verdict | None:
    """What counts of a part that was seen in several images, each of which is final or not and has a verdict or not.

    `ng` if any view is. Else `review` if any is, or is final without a verdict: what failed or was cancelled was not
    judged. Else None while any is in flight. Else `ok`.
    """
    found = {verdict or ("review" if final else None) for final, verdict in views}
    worst_first: tuple[Verdict | None, ...] = ("ng", "review", None, "ok")
    return next((verdict for verdict in worst_first if verdict in found), None)
