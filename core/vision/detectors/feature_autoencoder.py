"""The default detector: an autoencoder on frozen features, with statistics of its residual at each position.

A frozen backbone separates textures and edges better than pixels do. A small convolutional autoencoder learns the
combinations of features in good parts. Its residual is whitened with the mean and covariance that the residuals of good
parts have at the same position. The map is the length of the whitened residual, and the score is the mean of the
highest 2 % of the map. If parts always look alike, the scores are close to those of `feature-gaussian`; if their layout
varies, the autoencoder removes that variation.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar, Final, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from core.vision.detectors.architecture import WEIGHTS, Architecture, BackboneRecord
from core.vision.detectors.backbone import load_pretrained
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import disable_tf32
from core.vision.detectors.features import FeatureExtractor, FeatureSettings, input_size, pool_maps
from core.vision.detectors.position_statistics import PositionStatistics
from core.vision.errors import InvalidBundle
from core.vision.input.preprocessing import PreparedImage, Preprocessing
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions, PreparedImages
from core.vision.training.training_loop import TrainingLoop

_STEPS_PER_EPOCH: Final = 50
"""Steps of an epoch, which is not a pass over the images here: training needs a few hundred steps for any data set."""
_MINIBATCH_SIZE: Final = 16


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


class FeatureAutoencoderDetector(Detector):
    """Scores images by the whitened residual of their features; about 1 is normal."""

    name: ClassVar[str] = "feature-autoencoder"
    score_method = "whitened-residual-top-2-percent"

    def __init__(
        self,
        extractor: FeatureExtractor,
        network: FeatureAutoencoder,
        statistics: PositionStatistics,
        settings: FeatureSettings,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
        backbone: BackboneRecord | None = None,
    ) -> None:
        disable_tf32(device)
        self.architecture = Architecture(name=self.name, settings=asdict(settings))
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels
        self.device = device
        self.backbone = backbone
        self._extractor = extractor
        self._network = network.to(device).eval().requires_grad_(False)
        self._statistics = statistics.to(device)
        self._grid = settings.grid

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """See `Detector.input_size`. Keeps the image's aspect ratio; by default the area of 256 × 256 pixels."""
        return input_size(size, side)

    @classmethod
    def fit(
        cls,
        training: PreparedImages,
        validation: PreparedImages,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """See `Detector.fit`. An epoch has 50 steps of 16 images; its losses are mean squared errors of features."""
        disable_tf32(device)
        backbone = load_pretrained(options.backbone, options.backbone_weights)
        settings = FeatureSettings(options.backbone, preprocessing.width, preprocessing.height)
        extractor = FeatureExtractor(backbone.network, settings, device)
        sample = extractor.sample(training, options.seed, augmented=True)
        extractor.fit_scale(sample)
        network = _train(extractor, sample, validation, options, device, on_epoch, checkpoint)
        residuals = (_residual(network, features) for features in extractor.standardise_all(sample))
        statistics = PositionStatistics.from_features(residuals)
        return cls(
            extractor,
            network,
            statistics,
            settings,
            preprocessing,
            device=device,
            max_pixels=max_pixels,
            backbone=backbone.record,
        )

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`. The map is the length of the whitened residual at each position of the grid."""
        if not images:
            return ScoredImages(np.empty(0), np.empty((0, *self._grid), dtype=np.float32))
        with torch.inference_mode():
            maps = self._statistics.distance(_residual(self._network, self._extractor.extract(images)))
            return ScoredImages(pool_maps(maps).cpu().numpy(), maps.cpu().numpy())

    def save(self) -> dict[str, bytes]:
        """Return `weights.safetensors`: backbone, feature scale, autoencoder and statistics of the residual."""
        network = {f"autoencoder.{name}": value.cpu() for name, value in self._network.state_dict().items()}
        statistics = {f"statistics.{name}": value for name, value in self._statistics.state_dict().items()}
        return {WEIGHTS: save_tensors({**self._extractor.state_dict(), **network, **statistics})}

    @classmethod
    def load(
        cls,
        files: Mapping[str, bytes],
        architecture: Architecture,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
    ) -> Self:
        """See `Detector.load`."""
        try:
            settings = FeatureSettings(**architecture.settings)  # type: ignore[arg-type]
            state = load_tensors(files[WEIGHTS])
            extractor = FeatureExtractor.from_state_dict(state, settings, device)
            network = FeatureAutoencoder(len(state["center"]), *settings.grid)
            network.load_state_dict(_with_prefix(state, "autoencoder."))
            detector = cls(
                extractor,
                network,
                PositionStatistics.from_state_dict(_with_prefix(state, "statistics."), *settings.grid),
                settings,
                preprocessing,
                device=device,
                max_pixels=max_pixels,
            )
            # Score an image now, so that weights that do not fit together fail here and not in production.
            detector.score([np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)])
            return detector
        except torch.OutOfMemoryError:  # the device is at fault, not the bundle
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InvalidBundle(f"the bundle's {cls.name} cannot be built: {error}") from error


def _train(
    extractor: FeatureExtractor,
    sample: Tensor,
    validation: PreparedImages,
    options: FitOptions,
    device: str,
    on_epoch: Callable[[Epoch], None],
    checkpoint: Checkpoint | None,
) -> FeatureAutoencoder:
    """Train the autoencoder on a sample of features and return it with the weights of its best epoch."""
    channels, rows, columns = sample.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = FeatureAutoencoder(channels, rows, columns)
    mean = torch.stack([features.sum(0) for features in extractor.standardise_all(sample)]).sum(0) / len(sample)
    network.to(device).position.data.copy_(mean)
    held_out = extractor.sample(validation, options.seed, augmented=False)

    def epoch(random: np.random.Generator) -> Iterator[Tensor]:
        for _ in range(_STEPS_PER_EPOCH):
            chosen = torch.from_numpy(random.integers(0, len(sample), _MINIBATCH_SIZE))
            yield extractor.standardise(sample[chosen])

    def validate() -> float:
        with torch.inference_mode():
            residuals = (_residual(network, features) for features in extractor.standardise_all(held_out))
            return float(torch.cat([residual.square().mean((1, 2, 3)) for residual in residuals]).mean())

    TrainingLoop(network, options, device).run(epoch, validate, on_epoch, checkpoint)
    return network


def _residual(network: FeatureAutoencoder, features: Tensor) -> Tensor:
    """Return the part of standardised features that the autoencoder does not reconstruct, (N, C, rows, columns)."""
    with torch.inference_mode():
        residual: Tensor = features - network(features)
    return residual


def _with_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
