"""Score every good part of a training set by the detector that was not trained on its fold."""

from collections.abc import Callable

import numpy as np

from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import score_dataset
from core.vision.evaluation.metrics import Scores
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ImageDataset
from core.vision.training.folds import Folds


def score_held_out(
    fitted: CrossFitted[Detector], folds: Folds, images: ImageDataset, progress: Callable[[int], None]
) -> Scores:
    """Return the score of each image: float64, (N,).

    Args:
        fitted: to the images, in these folds.
        progress: called with the number of images scored so far.

    Raises:
        ScoreNotFinite: a score is not finite.
    """
    scores = np.empty(len(images))
    done = 0

    def on_images(count: int) -> None:
        progress(done + count)

    for fold, detector in enumerate(fitted.held_out):
        indices = folds.held_out(fold)
        scores[indices] = score_dataset(detector, images.subset(indices), on_images)
        done += len(indices)
    return scores
