"""What a detection benchmark finds."""

from dataclasses import dataclass

from benchmarks.robustness import Robustness
from core.vision.evaluation.metrics import Scores


@dataclass(frozen=True)
class Run:
    """One detector, trained with one seed on one set.

    Attributes:
        good, defective: scores of the images that are reported on.
        development: AUROC on those by which the detector was chosen; None where there are none.
        threshold: of `promised` false rejects, with its 95 % interval.
        milliseconds: to decode and score an image on one core.
    """

    detector: str
    seed: int
    good: Scores
    defective: Scores
    development: float | None
    threshold: float
    promised: tuple[float, float, float]
    milliseconds: float
    training_seconds: float
    bundle_bytes: int


@dataclass(frozen=True)
class Row:
    """One detector on one set, over its seeds: means, and the bootstrap interval of the mean AUROC."""

    set: str
    detector: str
    seeds: int
    auroc: float
    interval: tuple[float, float]
    development: float | None
    false_reject_rate: float
    promised: tuple[float, float, float]
    recall: float
    milliseconds: float
    training_seconds: float
    bundle_bytes: int


@dataclass(frozen=True)
class Found:
    """All that was measured on one set."""

    set: str
    images: dict[str, int]
    rows: list[Row]
    controls: dict[str, float]
    robustness: dict[str, list[Robustness]]
    runs: list[Run]
