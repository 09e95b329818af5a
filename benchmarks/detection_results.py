"""The results of the detection benchmark."""

from dataclasses import dataclass

from benchmarks.robustness import Robustness
from core.vision.evaluation.metrics import Scores


@dataclass(frozen=True)
class DetectorRun:
    """One detector, trained with one seed on one set.

    Attributes:
        good, defective: scores of the images that are reported on.
        development: AUROC on the images that the detector was chosen by; None if there are none.
        threshold: of the version, as calibrated in training.
        expected_false_rejects: the expected false-reject rate of the threshold, and the low and high end of its 95 %
            interval.
        milliseconds: to decode and score an image on one core.
    """

    detector: str
    seed: int
    good: Scores
    defective: Scores
    development: float | None
    threshold: float
    expected_false_rejects: tuple[float, float, float]
    milliseconds: float
    training_seconds: float
    bundle_bytes: int


@dataclass(frozen=True)
class ResultRow:
    """One detector on one set: the means over its seeds, and the bootstrap interval of the mean AUROC."""

    set: str
    detector: str
    seeds: int
    auroc: float
    interval: tuple[float, float]
    development: float | None
    false_reject_rate: float
    expected_false_rejects: tuple[float, float, float]
    recall: float
    milliseconds: float
    training_seconds: float
    bundle_bytes: int


@dataclass(frozen=True)
class SetResults:
    """All results on one set."""

    set: str
    images: dict[str, int]
    rows: list[ResultRow]
    controls: dict[str, float]
    robustness: dict[str, list[Robustness]]
    runs: list[DetectorRun]
