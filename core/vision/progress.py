"""How far a training is, and what it has to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from core.vision.training.fit_interface import Epoch


@dataclass(frozen=True)
class Progress:
    """Where `train` is.

    Attributes:
        stage: what is going on.
        done, total: of the stage, in images or epochs.
        epoch: the one that has just ended, while training.
        note: a line for people, such as how many images could not be read.
    """

    stage: Literal["reading", "training", "calibrating", "evaluating", "writing"]
    done: int
    total: int
    epoch: Epoch | None = None
    note: str | None = None


Tell = Callable[[Progress], None]
