"""The bundles that are scored with. How well they detect is of no interest here."""

from pathlib import Path

from core.vision.detectors.feature_autoencoder import FeatureAutoencoderDetector
from core.vision.train import TrainingOptions, train
from tests.fixtures.part_images import write_bundle, write_folder

_PARTS = 40
_EPOCHS = 2


def write_reference_bundle(folder: Path) -> Path:
    """Write a bundle of the reference network at 128 × 128 with random weights."""
    return write_bundle(folder)


def train_default_bundle(folder: Path) -> Path:
    """Train a feature autoencoder on EfficientNet-lite0, the first choice of `auto`, on a few synthetic parts."""
    parts = write_folder(folder.with_name("parts"), good=_PARTS)
    options = TrainingOptions(
        architecture=FeatureAutoencoderDetector.name, epochs=_EPOCHS, alignment="off", pose="as-is"
    )
    train(parts, folder, options, lambda _: None)
    return folder
