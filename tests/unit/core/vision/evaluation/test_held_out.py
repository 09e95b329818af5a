"""Each good part is scored by the detector that was not fitted on its fold."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.evaluation.evaluation import ScoreNotFinite
from core.vision.evaluation.held_out import score_held_out
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.record import Preprocessing
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ImageDataset
from core.vision.training.folds import Folds, make_folds

PARTS, SIDE = 14, 8
GROUPS = [0, 0, 0, *range(1, PARTS - 2)]


@pytest.fixture
def images(tmp_path: Path) -> ImageDataset:
    """Images whose grey level is their index."""
    paths = [tmp_path / f"{index:02}.png" for index in range(PARTS)]
    for index, path in enumerate(paths):
        Image.new("RGB", (SIDE, SIDE), (index, index, index)).save(path)
    return ImageDataset(paths, Preprocessing(width=SIDE, height=SIDE, scaled_decode=False), max_pixels=10**6)


class Spy:
    """Notes the images that it scores; the score of an image is its index plus a hundred times the fold."""

    def __init__(self, fold: int) -> None:
        self.fold = fold
        self.scored: list[int] = []

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        indices = [int(image[0, 0, 0]) for image in images]
        self.scored += indices
        return ScoredImages(np.array(indices) + 100.0 * self.fold, np.zeros((len(images), 1, 1), np.float32))


def spies(folds: Folds) -> CrossFitted[Any]:
    return CrossFitted(Spy(-1), [Spy(fold) for fold in range(folds.count)])


@pytest.mark.parametrize("count", [2, 4, 10])
def test_each_image_is_scored_once_by_the_detector_that_has_not_seen_its_group(
    images: ImageDataset, count: int
) -> None:
    folds = make_folds(GROUPS, count, seed=0)
    fitted = spies(folds)
    progress: list[int] = []
    scores = score_held_out(cast(CrossFitted[Detector], fitted), folds, images, progress.append)
    assert scores.tolist() == [index + 100 * folds.labels[index] for index in range(PARTS)]
    assert [spy.scored for spy in fitted.held_out] == [folds.held_out(fold) for fold in range(count)]
    assert fitted.final.scored == []
    assert progress == sorted(progress)
    assert progress[-1] == PARTS


def test_a_score_that_is_not_finite_is_refused_with_the_name_of_the_image(
    images: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = make_folds(GROUPS, 3, seed=0)

    def score(self: Spy, images: Sequence[PreparedImage]) -> ScoredImages:
        scores = np.where([image[0, 0, 0] == 5 for image in images], np.nan, 1.0)
        return ScoredImages(scores, np.zeros((len(images), 1, 1), np.float32))

    monkeypatch.setattr(Spy, "score", score)
    with pytest.raises(ScoreNotFinite, match=r"05\.png is not finite"):
        score_held_out(cast(CrossFitted[Detector], spies(folds)), folds, images, lambda _: None)
