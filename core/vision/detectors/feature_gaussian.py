"""The detector `feature-gaussian`: the distance of the features at each position from those of good parts.

A frozen backbone gives the features of an image; good parts have a mean and a covariance at each position. The map is
the Mahalanobis distance at each position. After Defard et al., "PaDiM" (ICPR 2021). It trains no network.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor

from core.vision.detectors.feature_detector import FeatureDetector
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings, with_prefix
from core.vision.detectors.features import ChannelScale, FeatureBatch, Layers
from core.vision.detectors.grid_features import GridSample, grid_size, to_grid
from core.vision.detectors.position_statistics import PositionStatistics, PositionSums
from core.vision.training.cross_fitted import CrossFitted


class FeatureGaussian(FeatureModel):
    """A Gaussian of the features at each position; the distance of good parts is about 1."""

    name: ClassVar[str] = "feature-gaussian"
    measure: ClassVar[str] = "mahalanobis"

    def __init__(self, scale: ChannelScale, statistics: PositionStatistics, grid: tuple[int, int]) -> None:
        self._scale = scale
        self._statistics = statistics
        self._grid = grid

    @classmethod
    def collector(cls, settings: FeatureSettings, seed: int, device: str) -> "_GaussianCollector":
        """See `FeatureModel.collector`."""
        return _GaussianCollector(settings, device)

    def maps(self, layers: Layers) -> Tensor:
        """See `FeatureModel.maps`."""
        return self._statistics.distance(self._scale.apply(to_grid(layers, self._grid)))

    def to(self, device: str) -> Self:
        """See `FeatureModel.to`."""
        return type(self)(self._scale.to(device), self._statistics.to(device), self._grid)

    def state_dict(self) -> dict[str, Tensor]:
        """See `FeatureModel.state_dict`: the scale of the channels, and mean and whitening of each position."""
        statistics = {f"statistics.{name}": value for name, value in self._statistics.state_dict().items()}
        return {"center": self._scale.center.cpu(), "scale": self._scale.scale.cpu(), **statistics}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings) -> Self:
        """See `FeatureModel.from_state_dict`."""
        grid = grid_size(settings)
        statistics = PositionStatistics.from_state_dict(with_prefix(state, "statistics."), *grid)
        return cls(ChannelScale(state["center"], state["scale"]), statistics, grid)


class _GaussianCollector:
    """Keeps the features on the grid."""

    def __init__(self, settings: FeatureSettings, device: str) -> None:
        self._sample = GridSample(settings)
        self._grid = grid_size(settings)
        self._device = device

    def add(self, batch: FeatureBatch) -> None:
        self._sample.add(batch)

    def fit(self, fit: CrossFit) -> CrossFitted[FeatureGaussian]:
        """The sums over a fold are subtracted from those over all images, so the folds cost little."""
        scale = self._sample.scale().to(self._device)

        def sums(images: list[int] | None) -> PositionSums:
            return PositionSums.of(self._sample.minibatches(scale, self._sample.of_images(images)))

        def model(of: PositionSums) -> FeatureGaussian:
            return FeatureGaussian(scale, PositionStatistics.from_sums(of).to(self._device), self._grid)

        everything = sums(None)
        held_out = [model(everything.without(sums(fit.folds.held_out(fold)))) for fold in range(fit.folds.count)]
        return CrossFitted(model(everything), held_out)


class FeatureGaussianDetector(FeatureDetector):
    """Scores images by the distance of their features from those of good parts; about 1 is normal."""

    name: ClassVar[str] = FeatureGaussian.name
    model_class = FeatureGaussian
