"""The types of `Detector.cross_fit`: images, options, checkpoints and epochs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core.vision.input.prepared_image import PreparedImage


class PreparedImages(Protocol):
    """Prepared images, which may not all fit in memory; see `core.vision.training.dataset.ImageDataset`."""

    def __len__(self) -> int: ...

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[PreparedImage]:
        """Yield all images, or those with the indices `order`, `size` at a time: (n, height, width, 3)."""


class Checkpoint(Protocol):
    """Stores the state of an interrupted `cross_fit`; see `core.vision.training.checkpoint`."""

    def read(self) -> dict[str, Any] | None:
        """Return the last state, or None if there is none."""

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state. It may contain tensors, numbers, texts, and lists and dicts of them."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images. Losses are means over the pass, in the unit of the detector's score.

    Attributes:
        number: counted from 1.
        training_loss: on the images that the network is trained on.
        validation_loss: on the images of the fold that it is not trained on; of the network that is trained on all
            images, the mean of the folds' losses after the same epoch.
        fold: the fold that is held out; None for the network that is trained on all images.
    """

    number: int
    training_loss: float
    validation_loss: float
    fold: int | None = None


@dataclass(frozen=True)
class FitOptions:
    """Options of a training. Each detector uses those that apply to it.

    Attributes:
        epochs: the number of passes over the training images.
        batch_size: images per step.
        learning_rate: the highest rate of the schedule.
        flips: whether to train on mirrored images, too. Off by default, because most parts have a handedness.
        seed: of everything random.
        mixed_precision: whether to use 16-bit floats on a GPU; see `core.vision.training.mixed_precision`.
        pooling: the share of the highest cells of a map whose mean is the score, for feature detectors; 0 for the
            highest cell, None for the detector's default.
        any_position: whether a feature autoencoder judges its residual by the statistics of all positions together.
        score_method: for detectors that have several; None for the detector's default.
        backbone: the pretrained network, for detectors that use one; see `core.vision.detectors.backbone.BACKBONES`.
            None for the default.
        backbone_weights: a file with the weights of the backbone.
    """

    epochs: int = 8
    batch_size: int = 4
    learning_rate: float = 2e-3
    flips: bool = False
    seed: int = 0
    mixed_precision: bool = True
    pooling: float | None = None
    any_position: bool = False
    score_method: str | None = None
    backbone: str | None = None
    backbone_weights: Path | None = None

    @property
    def backbone_name(self) -> str:
        """The name of the chosen or the default backbone."""
        return self.backbone or "efficientnet-lite0"
