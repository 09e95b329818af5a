"""The detector `feature-autoencoder`: an autoencoder on frozen features, with statistics of its residual.

A frozen backbone separates textures and edges better than pixels do. A small convolutional autoencoder learns the
combinations of features in good parts. Its residual is whitened with the mean and covariance that the residuals of good
parts have at the same position, or, for parts without a fixed pose, at all positions. The map is the length of the
whitened residual. If parts always look alike, the scores are close to those of `feature-gaussian`; if their layout
varies, the autoencoder removes that variation.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from core.vision.detectors.feature_detector import FeatureDetector
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings, with_prefix
from core.vision.detectors.features import ChannelScale, FeatureBatch, Layers
from core.vision.detectors.grid_features import GridSample, grid_size, to_grid
from core.vision.detectors.position_statistics import PositionStatistics, PositionSums
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.cross_training import FoldTraining, cross_train
from core.vision.training.fit_interface import FitOptions
from core.vision.training.training_loop import TrainingLoop

_STEPS_PER_EPOCH: Final = 50
"""Steps of an epoch, which is not a pass over the images here: training needs a few hundred steps for any data set."""
_MINIBATCH_SIZE: Final = 16
_MAX_CHANNELS: Final = 4096


class FeatureAutoencoder(nn.Module):
    """Reconstructs standardised features: float32, (N, C, rows, columns).

    The bottleneck has a quarter of the cells and 64 channels. `position` holds the constant part of each position, so
    the network spends no capacity on it.
    """

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 128, 1),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, 64, 1),
        )
        self.decoder = nn.Sequential(
            nn.Upsample((rows, columns), mode="bilinear", align_corners=False),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(128, channels, 1),
        )
        self.position = nn.Parameter(torch.zeros(1, channels, rows, columns))

    def forward(self, features: Tensor) -> Tensor:
        """Reconstruct features: float32, (N, C, rows, columns), in and out."""
        reconstructed: Tensor = self.decoder(self.encoder(features)) + self.position
        return reconstructed


class FeatureResidual(FeatureModel):
    """The whitened residual of an autoencoder of features; about 1 for good parts."""

    name: ClassVar[str] = "feature-autoencoder"
    measure: ClassVar[str] = "whitened-residual"
    folds: ClassVar[int] = 3

    def __init__(
        self,
        scale: ChannelScale,
        network: FeatureAutoencoder,
        statistics: PositionStatistics,
        grid: tuple[int, int],
    ) -> None:
        self._scale = scale
        self._network = network.eval().requires_grad_(False)
        self._statistics = statistics
        self._grid = grid

    @classmethod
    def collector(cls, settings: FeatureSettings, seed: int, device: str) -> "_ResidualCollector":
        """See `FeatureModel.collector`."""
        return _ResidualCollector(settings, device)

    def maps(self, layers: Layers) -> Tensor:
        """See `FeatureModel.maps`."""
        return self._statistics.distance(_residual(self._network, self._scale.apply(to_grid(layers, self._grid))))

    def to(self, device: str) -> Self:
        """See `FeatureModel.to`."""
        network = copy.deepcopy(self._network).to(device)
        return type(self)(self._scale.to(device), network, self._statistics.to(device), self._grid)

    def state_dict(self) -> dict[str, Tensor]:
        """See `FeatureModel.state_dict`: the scale of the channels, the autoencoder, statistics of its residual."""
        network = {f"autoencoder.{name}": value.cpu() for name, value in self._network.state_dict().items()}
        statistics = {f"statistics.{name}": value for name, value in self._statistics.state_dict().items()}
        return {"center": self._scale.center.cpu(), "scale": self._scale.scale.cpu(), **network, **statistics}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings) -> Self:
        """See `FeatureModel.from_state_dict`."""
        grid = grid_size(settings)
        scale = ChannelScale(state["center"], state["scale"])
        if len(scale.center) > _MAX_CHANNELS:  # the network is built for this number, so it is checked first
            raise ValueError(f"the features have {len(scale.center)} channels, more than {_MAX_CHANNELS}")
        network = FeatureAutoencoder(len(scale.center), *grid)
        network.load_state_dict(with_prefix(state, "autoencoder."))
        statistics = with_prefix(state, "statistics.")
        positions = (1, 1) if len(statistics["mean"]) == 1 else grid
        return cls(scale, network, PositionStatistics.from_state_dict(statistics, *positions), grid)


class _ResidualCollector:
    """Keeps the features on the grid."""

    def __init__(self, settings: FeatureSettings, device: str) -> None:
        self._sample = GridSample(settings)
        self._grid = grid_size(settings)
        self._device = device
        self._networks: CrossFitted[FeatureAutoencoder] | None = None

    def add(self, batch: FeatureBatch) -> None:
        self._sample.add(batch)

    def fit(self, fit: CrossFit) -> CrossFitted[FeatureResidual]:
        """Train a network for each fold and one on all images. A second call uses the same networks."""
        scale = self._sample.scale().to(self._device)
        networks = self._networks or cross_train(
            fit.folds,
            lambda task: self._train(task, scale, fit.options, fit.device),
            fit.options.epochs,
            fit.on_epoch,
            fit.checkpoint,
        )
        self._networks = networks

        def model(network: FeatureAutoencoder, images: list[int] | None) -> FeatureResidual:
            features = self._sample.minibatches(scale, self._sample.of_images(images))
            sums = PositionSums.of(_residual(network, each) for each in features)
            statistics = PositionStatistics.from_sums(sums.pooled() if fit.options.any_position else sums)
            return FeatureResidual(scale, network, statistics.to(self._device), self._grid)

        held_out = [model(network, fit.folds.training(fold)) for fold, network in enumerate(networks.held_out)]
        return CrossFitted(model(networks.final, None), held_out)

    def _train(self, task: FoldTraining, scale: ChannelScale, options: FitOptions, device: str) -> FeatureAutoencoder:
        """Train one network. An epoch has 50 steps of 16 images; its losses are mean squared errors of features."""
        training = self._sample.of_images(task.training)
        minibatches = self._sample.minibatches(scale, training)
        mean = torch.stack([features.sum(0) for features in minibatches]).sum(0) / len(training)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = FeatureAutoencoder(*mean.shape)
        network.to(device).position.data.copy_(mean)

        def epoch(random: np.random.Generator) -> Iterator[Tensor]:
            for _ in range(_STEPS_PER_EPOCH):
                chosen = random.choice(training, _MINIBATCH_SIZE).tolist()
                yield next(self._sample.minibatches(scale, chosen))

        def loss(images: Sequence[int]) -> float:
            features = self._sample.minibatches(scale, self._sample.of_images(images))
            return float(torch.cat([_residual(network, each).square().mean((1, 2, 3)) for each in features]).mean())

        TrainingLoop(network, options, device).run(epoch, task.validation(loss), task.on_epoch, task.checkpoint)
        return network


def _residual(network: FeatureAutoencoder, features: Tensor) -> Tensor:
    """Return the part of standardised features that the autoencoder does not reconstruct, (N, C, rows, columns)."""
    with torch.inference_mode():
        residual: Tensor = features - network(features)
    return residual


class FeatureAutoencoderDetector(FeatureDetector):
    """Scores images by the whitened residual of their features; about 1 is normal."""

    name: ClassVar[str] = FeatureResidual.name
    model_class = FeatureResidual
