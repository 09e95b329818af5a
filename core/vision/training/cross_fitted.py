"""Models of one kind that were fitted to the same images: one to all of them, and one for each fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Model = TypeVar("Model")


@dataclass(frozen=True)
class CrossFitted(Generic[Model]):
    """The fitted models.

    Attributes:
        final: fitted to all images.
        held_out: by fold, the model that was fitted to the images of all other folds.
    """

    final: Model
    held_out: Sequence[Model]
