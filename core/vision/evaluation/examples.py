"""Choose the images of a report: the good parts with the highest scores, and missed and caught defects.

They are scored again, so that the anomaly maps of the whole set need not be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.html.rendering import IMAGE_SIDE, jpeg
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import Evaluation
from core.vision.evaluation.heatmap import overlay, scale_to_threshold
from core.vision.evaluation.metrics import Scores
from core.vision.input.bit_depth import decode_visible
from core.vision.input.map_placement import place_map
from core.vision.input.preprocessing import prepare

EXAMPLES_PER_KIND: Final = 8
"""The maximum number of images of each kind."""


@dataclass(frozen=True)
class ReportExample:
    """An image of the report: its name, its score, and two JPEGs, of the image and of its heatmap."""

    name: str
    score: float
    image: bytes
    heatmap: bytes


@dataclass(frozen=True)
class ReportExamples:
    """The images of the report, at most `EXAMPLES_PER_KIND` of each kind.

    Attributes:
        good: good parts that were not trained on, highest score first.
        missed: defective parts below the threshold, lowest score first.
        best_caught: defective parts at or above the threshold, highest score first.
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
    """Choose the images of a report by their scores.

    Args:
        root: the folder that names are relative to.
        good, good_scores: good parts that were not trained on, and their scores.
        tested: the evaluation with the defective parts; None without one.
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
    ascending = np.argsort(tested.defective_scores, kind="stable")
    caught = tested.defective_scores[ascending] >= threshold
    return ReportExamples(
        worst, shown(tested.defective, ascending[~caught]), shown(tested.defective, ascending[caught][::-1])
    )


def _example(detector: Detector, root: Path, path: Path, threshold: float) -> ReportExample:
    """Score an image and draw its heatmap. No side is longer than `IMAGE_SIDE` pixels."""
    data = path.read_bytes()
    prepared = prepare(data, detector.preprocessing, max_pixels=detector.max_pixels)
    scored = detector.score([prepared.pixels])
    score = float(scored.scores[0])
    side = (IMAGE_SIDE, IMAGE_SIDE)
    image = decode_visible(data, detector.preprocessing.bit_depth, max_pixels=detector.max_pixels, at_least=side)
    image.thumbnail(side)
    hot = overlay(image, place_map(scale_to_threshold(scored.maps[0], score, threshold), prepared))
    return ReportExample(path.relative_to(root).as_posix(), score, jpeg(image), jpeg(hot))
