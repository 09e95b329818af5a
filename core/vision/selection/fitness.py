"""Whether a model version is fit for use: the rule, the reasons, and what to try if it is not.

A model version is not fit for use if, at its threshold,
- it catches less than half of the obvious synthetic defects: the largest spots and scratches, 8 % and 2 % of the side
  of the part, at the two strongest contrasts, 20 % and 40 % of the full scale; unless it catches half of at least ten
  real defective parts, which say more; or
- it catches less than a tenth of at least ten real defective parts.
The rule is meant for a detector that finds next to nothing while its threshold looks fine, as one that needs parts that
lie still has for parts in any pose. It is no proof that a detector which passes is good enough.
"""

from dataclasses import dataclass, field
from typing import Final

from core.vision.bundle.manifest import Metrics

MIN_OBVIOUS_CAUGHT: Final = 0.5
MIN_RECALL: Final = 0.1
MIN_DEFECTIVE: Final = 10
"""Fewer real defective images say too little."""
_PROVEN_RECALL = 0.5
_SEPARATED = 0.9


@dataclass(frozen=True)
class Obvious:
    """The result for the obvious synthetic defects.

    Attributes:
        caught, count: number of images at or above the threshold, and of all of them.
        auroc: the AUROC of their scores against those of good images, 0 to 1.
    """

    caught: int
    count: int
    auroc: float


@dataclass(frozen=True)
class Fitness:
    """Whether a model version is fit for use; see the module. `reasons` and `advice` are clauses, empty if it is."""

    fit: bool
    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


def judge(obvious: Obvious, metrics: Metrics | None) -> Fitness:
    """Apply the rule.

    Args:
        obvious: the obvious synthetic defects.
        metrics: detection on real parts; None if it was not measured.
    """
    recall = metrics.recall if metrics is not None and metrics.defective >= MIN_DEFECTIVE else None
    reasons = []
    if obvious.caught < MIN_OBVIOUS_CAUGHT * obvious.count and (recall is None or recall < _PROVEN_RECALL):
        share = f"{obvious.caught} of {obvious.count}"
        reasons.append(f"it catches only {share} large, strong synthetic spots and scratches")
    if metrics is not None and recall is not None and recall < MIN_RECALL:
        caught = round(recall * metrics.defective)
        reasons.append(f"it catches only {caught} of the {metrics.defective} defective parts in test/")
    if not reasons:
        return Fitness(True)
    return Fitness(False, reasons, _advice(obvious))


def _advice(obvious: Obvious) -> list[str]:
    if obvious.auroc >= _SEPARATED:  # the detector sees them, but the threshold is higher still
        return [
            "look in the report at the good parts that look worst: one that is defective raises the threshold for all",
            "train with a higher --false-reject-rate",
            "train on more good parts",
        ]
    return [
        "bring all parts into one pose, by a fixture or with --pose upright",
        "look closer, with a larger --input-size or a camera that is nearer",
        "make the light and the focus the same in every image",
        "train on more good parts",
    ]
