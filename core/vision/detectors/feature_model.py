"""The interface of what a feature detector learns: a model of the features of good parts."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, Self, TypeVar

from torch import Tensor

from core.vision.detectors.backbone import describe
from core.vision.detectors.features import FeatureBatch, Layers
from core.vision.detectors.pooling import DEFAULT_POOLING
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions
from core.vision.training.folds import Folds


@dataclass(frozen=True)
class FeatureSettings:
    """The settings of a feature detector.

    Attributes:
        backbone: one of `core.vision.detectors.backbone.BACKBONES`.
        width, height: of the prepared images, pixels; multiples of a cell of the backbone, two cells to 4096.
        pooling: the share of the highest cells of the map whose mean is the score; 0 for the highest cell.
    """

    backbone: str
    width: int
    height: int
    pooling: float = DEFAULT_POOLING

    def __post_init__(self) -> None:
        sides, cell = (self.width, self.height), describe(self.backbone).cell_pixels
        if not all(isinstance(side, int) and 2 * cell <= side <= 4096 and side % cell == 0 for side in sides):
            raise ValueError(
                f"the image must be {2 * cell} to 4096 pixels, multiples of {cell}, not {sides[0]} × {sides[1]}"
            )
        if not 0 <= self.pooling <= 1:
            raise ValueError(f"the pooling must be a share from 0 to 1, not {self.pooling:g}")


@dataclass(frozen=True)
class CrossFit:
    """What a model is fitted with.

    Attributes:
        folds: of the images.
        options: of the training.
        device: `cpu` or `cuda`.
        on_epoch: called with every epoch.
        checkpoint: the state of an interrupted fit; None to keep none.
    """

    folds: Folds
    options: FitOptions
    device: str
    on_epoch: Callable[[Epoch], None]
    checkpoint: Checkpoint | None = None


class FeatureModel(ABC):
    """Maps how much the features of an image differ from those of good parts.

    Attributes:
        name: of its detector.
        measure: what its map shows, for the score method.
        default_pooling: the share of cells that its score is the mean of, unless one is chosen.
        folds: the number of folds that are worth their time for this model.
        facts: what people should know of it, by name.
    """

    name: ClassVar[str]
    measure: ClassVar[str]
    default_pooling: ClassVar[float] = DEFAULT_POOLING
    folds: ClassVar[int] = 10
    facts: Mapping[str, str] = MappingProxyType({})

    @classmethod
    @abstractmethod
    def collector(cls, settings: FeatureSettings, seed: int, device: str) -> "Collector[Self]":
        """Return a collector that takes the features of good parts, one batch after the other."""

    @abstractmethod
    def maps(self, layers: Layers) -> Tensor:
        """Return how much each cell differs from good parts: float32, (N, rows, columns), 0 and up."""

    @abstractmethod
    def to(self, device: str) -> Self:
        """Return a copy on the device."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that `from_state_dict` needs, on the CPU."""

    @classmethod
    @abstractmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings) -> Self:
        """Restore a model from the result of `state_dict`.

        Raises:
            KeyError: a tensor is missing.
            ValueError, RuntimeError: a tensor does not fit.
        """


ModelT = TypeVar("ModelT")


class Collector(Protocol[ModelT]):
    """Takes the features of good parts, keeps what its model needs, and fits models to it."""

    def add(self, batch: FeatureBatch) -> None:
        """Take the features of a few images."""

    def fit(self, fit: CrossFit) -> "CrossFitted[ModelT]":
        """Fit a model to all images, and one for each fold without the images of the fold."""


def with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
