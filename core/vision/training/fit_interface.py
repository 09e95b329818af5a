"""What `fit` takes and reports: training images, options, checkpoints and epochs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class PreparedImages(Protocol):
    """Prepared images that may be too many for the memory; see `core.vision.training.dataset.ImageDataset`."""

    def __len__(self) -> int: ...

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """All images, or those of `order`, `size` at a time: uint8, (n, height, width, 3)."""


class Checkpoint(Protocol):
    """Where an interrupted `fit` left its state; see `core.vision.training.checkpoint`."""

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None at the first start."""

    def write(self, state: dict[str, Any]) -> None:
        """Keep tensors, numbers, texts, and lists and dicts of them, in place of what was written before."""


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images. Losses are means over it, in the unit of the detector's score."""

    number: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class FitOptions:
    """How a detector learns; each uses what applies to it.

    Attributes:
        epochs: passes over the training images, at most.
        patience: epochs without a better validation loss after which training stops.
        batch_size: images a step.
        learning_rate: the highest of the schedule.
        flips: whether parts may also appear mirrored; off, because most parts have a handedness.
        seed: of everything random.
        mixed_precision: whether a GPU may train with half the digits; see `core.vision.training.mixed_precision`.
        score_method: for detectors that have several; None for the detector's own choice.
        backbone: of detectors that stand on a pretrained one, see `core.vision.detectors.backbone.BACKBONES`.
        backbone_weights: a file with the weights of a pretrained backbone, for detectors that stand on one.
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
