"""Detection on a folder's `test/` pictures, measured a minibatch at a time and with its controls beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.vision.bundle import Metrics
from core.vision.dataset import PictureSet, Reading
from core.vision.detector import Detector
from core.vision.metrics import Scores, Thumbnails, auroc, auroc_interval, controls

_MINIBATCH = 32


@dataclass(frozen=True)
class Control:
    """A trivial score's AUROC, and its 95 % bootstrap interval."""

    auroc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """What was found on `test/`.

    Attributes:
        good, defective: the pictures of each kind.
        good_scores, defective_scores: float64, (N,) and (M,), finite, in the same order.
        controls: of trivial scores, by name.
        caught: by type of defect, how many of how many were at or above the threshold.
        metrics: as in the manifest.
    """

    good: list[Path]
    defective: list[Path]
    good_scores: Scores
    defective_scores: Scores
    controls: dict[str, Control]
    caught: dict[str, tuple[int, int]]
    metrics: Metrics


def scores_of(detector: Detector, pictures: PictureSet, progress: Callable[[int], None]) -> NDArray[np.float64]:
    """The score of each picture: float64, (N,).

    Args:
        progress: is told how many have been scored.

    Raises:
        ValueError: a score is not finite.
    """
    scores: list[float] = []
    for some in pictures.minibatches(_MINIBATCH):
        scores.extend(detector.score(list(some)).scores.tolist())
        progress(len(scores))
    if not np.isfinite(scores).all():
        path = pictures.paths[int(np.argmin(np.isfinite(scores)))]
        raise ValueError(f"the score of {path} is not finite: this detector has learned nothing that can be used")
    return np.array(scores, dtype=np.float64)


def evaluate(
    detector: Detector,
    root: Path,
    good: Reading,
    defective: Reading,
    known: Thumbnails,
    threshold: float,
    progress: Callable[[int], None],
) -> Evaluation:
    """Measure a detector.

    Args:
        root: the folder in MVTec layout.
        good, defective: pictures of its `test/`, which the detector has not seen; neither empty.
        known: thumbnails of those that it was trained on.
        threshold: scores at or above it are `ng`.
        progress: is told how many pictures have been scored.

    Raises:
        ValueError: a score is not finite.
    """
    good_scores = scores_of(detector, good.pictures, progress)
    defective_scores = scores_of(detector, defective.pictures, lambda done: progress(len(good.paths) + done))
    trivial = _controls(good, defective, known)
    return Evaluation(
        good=good.paths,
        defective=defective.paths,
        good_scores=good_scores,
        defective_scores=defective_scores,
        controls=trivial,
        caught=_caught(root, defective.paths, defective_scores >= threshold),
        metrics=Metrics(
            good=len(good.paths),
            defective=len(defective.paths),
            auroc=auroc(good_scores, defective_scores),
            auroc_interval=auroc_interval(good_scores, defective_scores),
            controls={name: control.auroc for name, control in trivial.items()},
            false_reject_rate=float((good_scores >= threshold).mean()),
            recall=float((defective_scores >= threshold).mean()),
        ),
    )


def _caught(root: Path, paths: list[Path], rejected: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for path, was_rejected in zip(paths, rejected.tolist(), strict=True):
        kind = path.relative_to(root / "test").parts[0]
        count, of = counts.get(kind, (0, 0))
        counts[kind] = (count + was_rejected, of + 1)
    return counts


def _controls(good: Reading, defective: Reading, known: Thumbnails) -> dict[str, Control]:
    of_good, of_defective = (controls(some.thumbnails, some.deviations, known) for some in (good, defective))
    return {
        name: Control(auroc(of_good[name], of_defective[name]), auroc_interval(of_good[name], of_defective[name]))
        for name in of_good
    }
