"""Every good part is scored by a detector that saw no shot of it, and the final detector knows all of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.vision.bundle.manifest import TRAINING_CURVE
from core.vision.calibration.calibration import CROSS_FITTED_WORTH
from core.vision.detectors.detector import Detector
from core.vision.detectors.registry import detector_classes
from core.vision.evaluation.evaluation import score_dataset
from core.vision.evaluation.held_out import score_held_out
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.record import Preprocessing
from core.vision.train import TrainingOptions, train
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ImageDataset
from core.vision.training.fit_interface import FitOptions
from core.vision.training.folds import Folds, make_folds
from tests.fixtures.prepared_images import ImagesInMemory
from tests.fixtures.textured_parts import part_on_background

GOOD, SHOTS, SIDE = 18, 4, 32
ARCHITECTURES = sorted(detector_classes())


@pytest.fixture(scope="module")
def parts(part: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good parts, one of which is odd and was taken four times."""
    root = tmp_path_factory.mktemp("odd")
    good = root / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(GOOD):
        (good / f"part{seed:02}_0.png").write_bytes(part(seed))
    for shot in range(SHOTS):
        (good / f"part{GOOD}_{shot}.png").write_bytes(part(100 + shot, defective=True))
    return root


def cross_fit(architecture: str, images: ImageDataset, folds: Folds) -> CrossFitted[Detector]:
    return detector_classes()[architecture].cross_fit(
        images,
        folds,
        images.preprocessing,
        FitOptions(epochs=4 if architecture == "conv-autoencoder" else 1),  # an epoch of features is 50 steps
        device="cpu",
        max_pixels=10**6,
        on_epoch=lambda _: None,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_odd_part_is_odd_to_the_detector_that_scores_it_and_known_to_the_final_one(
    parts: Path, architecture: str
) -> None:
    preprocessing = Preprocessing(width=SIDE, height=SIDE, scaled_decode=True)
    images = ImageDataset(sorted((parts / "train" / "good").iterdir()), preprocessing, max_pixels=10**6)
    together = make_folds([*range(GOOD), *[GOOD] * SHOTS], 3, seed=0)
    fitted = cross_fit(architecture, images, together)
    held_out = score_held_out(fitted, together, images, lambda _: None)
    odd, others = held_out[GOOD:], held_out[:GOOD]
    assert odd.min() > others.max()
    final = score_dataset(fitted.final, images, lambda _: None)
    assert final[GOOD:].max() < 0.8 * odd.min()

    if architecture.startswith("combined"):
        return  # its scale follows the held-out scores, so those of two trainings cannot be compared
    apart = make_folds(range(GOOD + SHOTS), 3, seed=0)
    assert len(set(apart.labels[GOOD:])) > 1
    seen = score_held_out(cross_fit(architecture, images, apart), apart, images, lambda _: None)
    assert np.median(seen[GOOD:]) < 0.8 * np.median(odd)  # another shot of the part was trained on


@pytest.mark.parametrize("architecture", ["conv-autoencoder", "feature-gaussian"])
def test_a_training_calibrates_with_held_out_scores_of_all_good_parts(
    parts: Path, tmp_path: Path, architecture: str
) -> None:
    """With three folds or ten, the part with four shots is in one of them."""
    options = TrainingOptions(
        architecture=architecture, input_size=SIDE, epochs=4, device="cpu", group_by=r"part(\d+)_", pose="as-is"
    )
    manifest = train(parts, tmp_path / "bundle", options, lambda _: None)
    training, calibration = manifest.training, manifest.threshold.calibration
    assert training is not None
    assert calibration is not None
    assert training.parts == {"training": GOOD + SHOTS, "calibration": GOOD + SHOTS}
    assert (training.groups, training.folds) == (GOOD + 1, detector_classes()[architecture].folds())
    assert (calibration.sample_size, calibration.groups) == (GOOD + SHOTS, GOOD + 1)
    assert calibration.effective_sample_size == pytest.approx(
        CROSS_FITTED_WORTH * (GOOD + SHOTS) ** 2 / (GOOD + SHOTS**2)
    )
    assert TRAINING_CURVE in manifest.files
    assert (training.epochs, training.best_epoch) == ((0, None) if architecture == "feature-gaussian" else (4, 4))

    preprocessing = manifest.preprocessing
    images = ImageDataset(sorted((parts / "train" / "good").iterdir()), preprocessing, max_pixels=10**6)
    folds = make_folds([*range(GOOD), *[GOOD] * SHOTS], detector_classes()[architecture].folds(), options.seed)
    held_out = score_held_out(cross_fit(architecture, images, folds), folds, images, lambda _: None)
    # Rank ⌈(22 + 1) · 0.95⌉ = 22 of 22: the threshold is just above the largest held-out score.
    assert manifest.threshold.value == pytest.approx(held_out.max(), rel=1e-6)


def test_a_bank_finds_a_defect_wherever_the_part_lies() -> None:
    random = np.random.default_rng(0)

    def part_somewhere(seed: int) -> PreparedImage:
        return part_on_background(seed, center=tuple(random.uniform(0.35, 0.65, 2)))

    fitted = detector_classes()["memory-bank"].cross_fit(
        ImagesInMemory(np.stack([part_somewhere(seed) for seed in range(16)]).astype(np.uint8)),
        make_folds(range(16), 2, seed=0),
        Preprocessing(width=96, height=96, scaled_decode=False),
        FitOptions(),
        device="cpu",
        max_pixels=10**6,
        on_epoch=lambda _: None,
    )
    good = fitted.final.score([part_somewhere(seed) for seed in range(100, 108)]).scores
    spotted = part_on_background(200)
    spotted[40:48, 44:52] = 20
    moved = [np.roll(spotted, (down, right), (0, 1)) for down in (-16, 0, 16) for right in (-16, 0, 16)]
    assert fitted.final.score(moved).scores.min() > 1.2 * good.max()
