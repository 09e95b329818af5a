"""The bundles that are scored with. How well they detect is of no interest here."""

from pathlib import Path

from core.vision.detectors.feature_autoencoder import FeatureAutoencoderDetector
from core.vision.train import TrainingOptions, train
from tests.fixtures.part_images import encoded, part, write_bundle

_PARTS = 20
_SIZE = (900, 900)  # that of the images to score: the detector chooses its input size by it
_EPOCHS = 1


def write_reference_bundle(folder: Path) -> Path:
    """Write a bundle of the reference network at 128 × 128 with random weights."""
    return write_bundle(folder)


def train_default_bundle(folder: Path) -> Path:
    """Train a feature autoencoder on EfficientNet-lite0, the first choice of `auto`, on a few synthetic parts."""
    parts = folder.with_name("parts")
    good = parts / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(_PARTS):
        (good / f"{seed}.jpg").write_bytes(encoded(part(seed, size=_SIZE), "JPEG"))
    options = TrainingOptions(
        architecture=FeatureAutoencoderDetector.name, epochs=_EPOCHS, alignment="off", pose="as-is"
    )
    train(parts, folder, options, lambda _: None)
    return folder
