"""Detection on `test/`, and whether the maps point at the defects where the folder has masks."""

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
def own(folder: Path, tmp_path: Path) -> Path:
    """A folder of good and scratched parts that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


@pytest.fixture
def masks(own: Path) -> Path:
    """The folder of the scratches' masks, all made."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[SCRATCH] = 255
    place = own / "ground_truth" / "scratch"
    place.mkdir(parents=True)
    for path in (own / "test" / "scratch").iterdir():
        Image.fromarray(mask).save(place / f"{path.stem}_mask.png")
    return place


@pytest.fixture
def evaluated(detector: AutoencoderDetector, own: Path) -> Callable[[], Evaluation]:
    """`evaluated()` measures an untrained network, which makes all of a mean grey and finds what is bright."""

    def measure() -> Evaluation:
        layout = read_mvtec_folder(own)
        good, defective = (_read(detector, paths) for paths in (layout.test_good, layout.test_defective))
        known = _read(detector, layout.good[:4]).thumbnails
        return evaluate(detector, own, good, defective, known, threshold=0.05, progress=lambda _: None)

    return measure


def _read(detector: Detector, paths: list[Path]) -> ScannedImages:
    return read(paths, detector.preprocessing, max_pixels=10**6, progress=lambda _: None)


def test_scores_are_those_of_each_image(detector: AutoencoderDetector, evaluated: Callable[[], Evaluation]) -> None:
    found = evaluated()
    for paths, scores in ((found.good, found.good_scores), (found.defective, found.defective_scores)):
        alone = [detector.score([detector.prepare(path.read_bytes())]).scores[0] for path in paths]
        np.testing.assert_allclose(scores, alone, rtol=1e-5)
    caught = int((found.defective_scores >= 0.05).sum())
    assert found.caught == {"scratch": (caught, 8)}
    assert (found.metrics.good, found.metrics.defective, found.metrics.recall) == (8, 8, caught / 8)


@pytest.mark.usefixtures("masks")
def test_maps_are_measured_against_masks(evaluated: Callable[[], Evaluation]) -> None:
    found = evaluated()
    assert found.metrics.pixel_auroc is not None
    assert found.metrics.aupro is not None
    assert found.metrics.pixel_auroc > 0.95
    assert found.metrics.aupro > 0.8
    assert found.notes == []


def test_a_map_that_points_elsewhere_is_found_out(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    right = evaluated().metrics.pixel_auroc
    for path in masks.iterdir():
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    wrong = evaluated().metrics.pixel_auroc
    assert right is not None
    assert wrong is not None
    assert wrong < right - 0.2


def test_without_masks_nothing_is_said_of_places(evaluated: Callable[[], Evaluation]) -> None:
    found = evaluated()
    assert (found.metrics.pixel_auroc, found.metrics.aupro, found.notes) == (None, None, [])


def test_a_damaged_mask_is_left_out_with_a_note(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    first = min(masks.iterdir())
    first.write_bytes(b"no image")
    found = evaluated()
    assert found.metrics.pixel_auroc is not None
    [note] = found.notes
    assert first.stem.removesuffix("_mask") in note


def test_masks_that_mark_nothing_measure_nothing(masks: Path, evaluated: Callable[[], Evaluation]) -> None:
    for path in masks.iterdir():
        Image.new("L", (SIDE, SIDE)).save(path)
    found = evaluated()
    assert (found.metrics.pixel_auroc, found.metrics.aupro) == (None, None)
    assert len(found.notes) == 1
