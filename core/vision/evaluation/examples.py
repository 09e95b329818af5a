"""The images that a report shows: the good parts that look worst, the defects that were missed, and the caught ones.

They are scored again, so the anomaly maps of a whole set need not be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.html.rendering import IMAGE_SIDE, jpeg
from core.intake.image_decoding import decode
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import Evaluation
from core.vision.evaluation.heatmap import overlay, scale_to_threshold
from core.vision.evaluation.metrics import Scores

EXAMPLES_PER_KIND: Final = 8
"""Images of each kind, at most."""


@dataclass(frozen=True)
class ReportExample:
    """An image that is shown: its name, its score, and two JPEGs of it, the plain one and the one with its heat."""

    name: str
    score: float
    image: bytes
    heatmap: bytes


@dataclass(frozen=True)
class ReportExamples:
    """At most eight of each kind.

    Attributes:
        good: the good parts that scored highest, of those that were not trained on.
        missed: the defective parts below the threshold, the lowest first.
        best_caught: the defective parts at or above the threshold, the highest first.
    """

    good: Sequence[ReportExample] = ()
    missed: Sequence[ReportExample] = ()
    best_caught: Sequence[ReportExample] = ()


def choose_examples(
    detector: Detector,
    root: Path,
    good: Sequence[Path],
    good_scores: Scores,
    tested: Evaluation | None,
    threshold: float,
) -> ReportExamples:
    """Choose what to show by the scores.

    Args:
        root: the folder that names are relative to.
        good: good parts that were not trained on, with their scores.
        tested: the defective parts; None for none.
        threshold: scores at or above it are `ng`.

    Raises:
        core.intake.image_decoding.Undecodable: an image has changed since it was scored.
        OSError: a file cannot be read.
    """

    def shown(paths: Sequence[Path], order: NDArray[np.intp]) -> list[ReportExample]:
        return [_example(detector, root, paths[index], threshold) for index in order[:EXAMPLES_PER_KIND]]

    worst = shown(good, np.argsort(-good_scores, kind="stable"))
    if tested is None:
        return ReportExamples(good=worst)
    rising = np.argsort(tested.defective_scores, kind="stable")
    caught = tested.defective_scores[rising] >= threshold
    return ReportExamples(
        worst, shown(tested.defective, rising[~caught]), shown(tested.defective, rising[caught][::-1])
    )


def _example(detector: Detector, root: Path, path: Path, threshold: float) -> ReportExample:
    """Score an image and lay its heat over it; no side is longer than 320 pixels."""
    data = path.read_bytes()
    scored = detector.score([detector.prepare(data)])
    score = float(scored.scores[0])
    image = decode(data, max_pixels=detector.max_pixels, at_least=(IMAGE_SIDE, IMAGE_SIDE))
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    hot = overlay(image, scale_to_threshold(scored.maps[0], score, threshold))
    return ReportExample(path.relative_to(root).as_posix(), score, jpeg(image), jpeg(hot))
