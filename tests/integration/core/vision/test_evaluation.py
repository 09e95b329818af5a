"""Detection on `test/`, and localisation if the folder has masks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import Evaluation, evaluate
from core.vision.training.dataset import ScannedImages, read, read_mvtec_folder

SIDE = 48
SCRATCH = (slice(SIDE // 3, SIDE // 3 + 6), slice(8, SIDE - 8))
"""Where the defective parts of `part` have theirs."""


@pytest.fixture
def copied_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder of good and scratched parts."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture
def masks(copied_folder: Path) -> Path:
    """The folder with the masks of all scratches."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[SCRATCH] = 255
    place = copied_folder / "ground_truth" / "scratch"
    place.mkdir(parents=True)
    for path in (copied_folder / "test" / "scratch").iterdir():
        Image.fromarray(mask).save(place / f"{path.stem}_mask.png")
    return place


@pytest.fixture
def evaluated(detector: AutoencoderDetector, copied_folder: Path) -> Callable[[], Evaluation]:
    """`evaluated()` evaluates an untrained network, whose reconstructions are a mean grey: bright areas score high."""

    def measure() -> Evaluation:
        layout = read_mvtec_folder(copied_folder)
        good, defective = (_read(detector, paths) for paths in (layout.test_good, layout.test_defective))
        references = _read(detector, layout.good[:4]).thumbnails
        return evaluate(detector, copied_folder, good, defective, references, threshold=0.05, progress=lambda _: None)

    return measure


def _read(detector: Detector, paths: list[Path]) -> ScannedImages:
    return read(paths, detector.preprocessing, max_pixels=10**6, progress=lambda _: None)


def test_scores_are_those_of_each_image(detector: AutoencoderDetector, evaluated: Callable[[], Evaluation]) -> None:
    evaluation = evaluated()
    for paths, scores in (
        (evaluation.good, evaluation.good_scores),
        (evaluation.defective, evaluation.defective_scores),
    ):
        alone = [detector.score([detector.prepare(path.read_bytes())]).scores[0] for path in paths]
        np.testing.assert_allclose(scores, alone, rtol=1e-5)
    caught = int((evaluation.defective_scores >= 0.05).sum())
    assert evaluation.caught == {"scratch": (caught, 8)}
    assert (evaluation.metrics.good, evaluation.metrics.defective, evaluation.metrics.recall) == (8, 8, caught / 8)


@pytest.mark.usefixtures("masks")
def test_maps_are_measured_against_masks(evaluated: Callable[[], Evaluation]) -> None:
    evaluation = evaluated()
    assert evaluation.metrics.pixel_auroc is not None
    assert evaluation.metrics.aupro is not None
    assert evaluation.metrics.pixel_auroc > 0.95
    assert evaluation.metrics.aupro > 0.8
    assert evaluation.notes == []


def test_an_anomaly_map_that_misses_the_defect_scores_low(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    right = evaluated().metrics.pixel_auroc
    for path in masks.iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    wrong = evaluated().metrics.pixel_auroc
    assert right is not None
    assert wrong is not None
    assert wrong < right - 0.2


def test_without_masks_localisation_is_not_measured(evaluated: Callable[[], Evaluation]) -> None:
    evaluation = evaluated()
    assert (evaluation.metrics.pixel_auroc, evaluation.metrics.aupro, evaluation.notes) == (None, None, [])


def test_a_damaged_mask_is_skipped_with_a_note(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    first = min(masks.iterdir())
    first.write_bytes(b"no image")
    evaluation = evaluated()
    assert evaluation.metrics.pixel_auroc is not None
    [note] = evaluation.notes
    assert first.stem.removesuffix("_mask") in note


def test_empty_masks_measure_nothing(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    for path in masks.iterdir():
        Image.new("L", (SIDE, SIDE)).save(path)
    evaluation = evaluated()
    assert (evaluation.metrics.pixel_auroc, evaluation.metrics.aupro) == (None, None)
    assert len(evaluation.notes) == 1
