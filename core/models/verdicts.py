"""The only place that decides verdicts. `core.models.thresholds.verdict_sql` is the same decision in SQL."""

from collections.abc import Iterable, Sequence
from typing import Literal

Verdict = Literal["ok", "ng", "review"]


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


def effective_verdict(machine: Verdict | None, reviewed: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict that counts: that of the last review, or the machine's if there is none."""
    return reviewed[-1] if reviewed else machine


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
