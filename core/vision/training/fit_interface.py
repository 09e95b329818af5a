"""The types of `Detector.fit`: images, options, checkpoints and epochs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class PreparedImages(Protocol):
    """Prepared images, which may not all fit in memory; see `core.vision.training.dataset.ImageDataset`."""

    def __len__(self) -> int: ...

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield all images, or those with the indices `order`, `size` at a time: uint8, (n, height, width, 3)."""


class Checkpoint(Protocol):
    """Stores the state of an interrupted `fit`; see `core.vision.training.checkpoint`."""

    def read(self) -> dict[str, Any] | None:
        """Return the last state, or None if there is none."""

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state. It may contain tensors, numbers, texts, and lists and dicts of them."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images. Losses are means over the pass, in the unit of the detector's score."""

    number: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class FitOptions:
    """Options of a training. Each detector uses those that apply to it.

    Attributes:
        epochs: the maximum number of passes over the training images.
        patience: training stops after this many epochs without a better validation loss.
        batch_size: images per step.
        learning_rate: the highest rate of the schedule.
        flips: whether to train on mirrored images, too. Off by default, because most parts have a handedness.
        seed: of everything random.
        mixed_precision: whether to use 16-bit floats on a GPU; see `core.vision.training.mixed_precision`.
        score_method: for detectors that have several; None for the detector's default.
        backbone: the pretrained network, for detectors that use one; see `core.vision.detectors.backbone.BACKBONES`.
        backbone_weights: a file with the weights of the backbone.
    """

    epochs: int = 8
    patience: int = 3
    batch_size: int = 4
    learning_rate: float = 2e-3
    flips: bool = False
    seed: int = 0
    mixed_precision: bool = True
    score_method: str | None = None
    backbone: str = "efficientnet-lite0"
    backbone_weights: Path | None = None
