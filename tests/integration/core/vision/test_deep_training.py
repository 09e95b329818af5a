"""Training on grey images of 12 bits: serving prepares them as training did, and knows other depths."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import Manifest
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.detector import Detector
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.train import Progress, TrainingOptions, train
from core.vision.training.dataset import InvalidDataset, read
from tests.fixtures.deep_images import deep_levels, deep_png
from tests.fixtures.part_images import png

OPTIONS = {
    "autoencoder": TrainingOptions(architecture=AutoencoderDetector.name, input_size=32, epochs=1, device="cpu"),
    "gaussian": TrainingOptions(architecture="feature-gaussian", input_size=64, device="cpu"),
}


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 good parts of 12 bits, in PNGs of 16 bits that name no depth; a test image of each kind has 8 bits."""
    root = tmp_path_factory.mktemp("deep")
    for kind, seeds in {"train/good": range(24), "test/good": range(24, 27), "test/dark": range(27, 30)}.items():
        (root / kind).mkdir(parents=True)
        for seed in seeds:
            levels = deep_levels(seed)
            if kind == "test/dark":
                levels[20:40] //= 2
            (root / kind / f"{seed:03}.png").write_bytes(deep_png(levels))
        if kind != "train/good":
            (root / kind / "8-bits.png").write_bytes(png(40))
    return root


@pytest.fixture(scope="module", params=OPTIONS)
def trained(
    request: pytest.FixtureRequest, deep_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest, list[str]]:
    """The bundle's folder, its manifest, and the notes of the training."""
    out = tmp_path_factory.mktemp("bundles") / "deep"
    notes: list[str] = []

    def on_progress(progress: Progress) -> None:
        notes.extend([progress.note] if progress.note else [])

    manifest = train(deep_folder, out, OPTIONS[request.param], on_progress, report=out.with_suffix(".html"))
    return out, manifest, notes


@pytest.fixture
def served(trained: tuple[Path, Manifest, list[str]]) -> Detector:
    files = read_folder(trained[0])
    detector = load_detector(files, device="cpu", max_pixels=10**6)
    check_golden(detector, files)
    return detector


def test_the_bundle_and_the_report_name_the_bit_depth(trained: tuple[Path, Manifest, list[str]]) -> None:
    out, manifest, notes = trained
    assert manifest.preprocessing.bit_depth == 12
    assert ", 12 bits" in out.with_suffix(".html").read_text()
    assert sum("by their highest grey levels it is 12" in note for note in notes) == 1
    assert sum("1 of 4 images have another bit depth than the training images" in note for note in notes) == 2


def test_serving_sees_the_values_of_training(served: Detector, deep_folder: Path) -> None:
    paths = sorted((deep_folder / "train" / "good").iterdir())
    read_images = read(paths, served.preprocessing, max_pixels=10**6, progress=lambda _: None)
    trained_on = np.concatenate(list(read_images.images.minibatches(8)))
    assert trained_on.dtype == np.float32
    assert np.array_equal(trained_on, np.stack([served.prepare(path.read_bytes()) for path in paths]))
    assert served.preprocessing == Preprocessing.model_validate_json(served.preprocessing.model_dump_json())


def test_one_level_of_4095_changes_the_score(served: Detector) -> None:
    levels = deep_levels(50)
    other = levels.copy()
    other[24:40, 40:60] += 1
    images = [prepare(deep_png(each), served.preprocessing, max_pixels=10**6) for each in (levels, other)]
    assert images[0].reasons == images[1].reasons == ()
    first, second = served.score([image.pixels for image in images]).scores
    assert np.isfinite([first, second]).all()
    assert first != second
    assert first == pytest.approx(second, rel=0.05)


def test_other_depths_in_the_training_set_are_refused(deep_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    good = tmp_path / "train" / "good"
    good.mkdir()
    for path in (deep_folder / "train" / "good").iterdir():
        (good / path.name).symlink_to(path)
    with pytest.raises(InvalidDataset, match="the chosen bit depth of 10: there are 24 of 12 bits"):
        train(tmp_path, tmp_path / "out", replace(OPTIONS["autoencoder"], bit_depth=10), lambda _: None)
    (good / "8-bits.png").write_bytes(png(1))
    with pytest.raises(InvalidDataset, match=r"different bit depths: there are 1 of 8 bits .*, 24 of 12 bits"):
        train(tmp_path, tmp_path / "out", OPTIONS["autoencoder"], lambda _: None)


def test_an_unknown_bit_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="bit depth must be one of auto, 8, 10, 12, 14, 16, not 9"):
        replace(OPTIONS["autoencoder"], bit_depth=9)  # type: ignore[arg-type]
