"""A trial: one detector, input size, pose and pooling, and how well it separates defective from good parts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from core.vision.detectors.backbone import LITE0
from core.vision.detectors.pooling import pooling_name
from core.vision.input.record import Preprocessing

EQUAL: Final = 0.005
"""Trials whose quality differs by less than this are equally good; the faster one is chosen."""


@dataclass(frozen=True)
class Candidate:
    """What can be chosen.

    Attributes:
        architecture, backbone, side, pooling, any_position: as in `core.vision.training_options.TrainingOptions`.
        preprocessing: of the images.
    """

    architecture: str
    backbone: str
    side: int
    preprocessing: Preprocessing
    pooling: float
    any_position: bool = False

    @property
    def description(self) -> str:
        """For people, for example `memory-bank, 384 px, upright, top-0.5-percent`."""
        where = ", any position" if self.any_position else ""
        backbone = f", {self.backbone}" if self.backbone != LITE0 else ""
        pose = self.preprocessing.pose
        return f"{self.architecture}{where}{backbone}, {self.side} px, {pose}, {pooling_name(self.pooling)}"


@dataclass(frozen=True)
class Trial:
    """A candidate and its results. AUROCs and rates are 0 to 1.

    Attributes:
        candidate: what was tried.
        auroc: of synthetic defects against good parts, each scored by a model that was not fitted on the part: the
            mean of the AUROCs of all kinds of defects.
        partial_auroc: likewise, of false-reject rates up to 10 % only, see `core.vision.evaluation.metrics`. The
            threshold lies there, so detectors are chosen by it.
        caught: share of the synthetic defects at or above the threshold for the false-reject rate.
        test_auroc: of the images in `test/`; None without any.
        milliseconds: to decode and score one image on one core, or on the GPU.
    """

    candidate: Candidate
    auroc: float
    partial_auroc: float
    caught: float
    test_auroc: float | None
    milliseconds: float

    def quality(self, *, by_test: bool) -> float:
        """Return the AUROC or partial AUROC that it is chosen by."""
        return self.test_auroc if by_test and self.test_auroc is not None else self.partial_auroc

    def document(self) -> dict[str, Any]:
        """Return the trial for JSON."""
        fields = asdict(self)
        del fields["candidate"]
        candidate = self.candidate
        return {
            "description": candidate.description,
            "architecture": candidate.architecture,
            "backbone": candidate.backbone,
            "any_position": candidate.any_position,
            "pooling": candidate.pooling,
            "preprocessing": candidate.preprocessing.model_dump(mode="json", exclude={"alignment"}),
            **fields,
        }


def choose(trials: Sequence[Trial], *, by_test: bool, max_ms: float) -> Trial:
    """Choose the trial with the highest quality among those that are fast enough; the fastest of equally good ones.

    If none is fast enough, the fastest is chosen.

    Args:
        trials: at least one.
        by_test: whether it is chosen by the images in `test/`, of which each trial then has the AUROC.
        max_ms: the largest time for one image, milliseconds.
    """
    fast = [trial for trial in trials if trial.milliseconds <= max_ms]
    if not fast:
        return min(trials, key=lambda trial: trial.milliseconds)
    best = max(trial.quality(by_test=by_test) for trial in fast)
    equal = [trial for trial in fast if trial.quality(by_test=by_test) > best - EQUAL]
    return min(equal, key=lambda trial: (trial.milliseconds, -trial.quality(by_test=by_test)))


def by_quality(trials: Sequence[Trial], *, by_test: bool, max_ms: float) -> list[Trial]:
    """Return the trials for people: the chosen one first, then by quality, highest first. See `choose`."""
    chosen = choose(trials, by_test=by_test, max_ms=max_ms)
    others = [trial for trial in trials if trial is not chosen]
    return [chosen, *sorted(others, key=lambda trial: -trial.quality(by_test=by_test))]
