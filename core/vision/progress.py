"""The progress of a training, as reported to its caller."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.vision.training.fit_interface import Epoch


@dataclass(frozen=True)
class Progress:
    """The progress of `train`.

    Attributes:
        stage: the current stage.
        done, total: images, input sizes and poses, or epochs of the stage.
        epoch: the epoch that has just ended, in the stage `training`.
        note: a line for people, for example the number of unreadable images.
    """

    stage: Literal["reading", "choosing", "training", "calibrating", "detectability", "evaluating", "writing"]
    done: int
    total: int
    epoch: Epoch | None = None
    note: str | None = None


OnProgress = Callable[[Progress], None]
