"""The baseline detector: the distance of the features at each position from those of good parts. Trains no network.

A frozen backbone gives the features of an image; good parts have a mean and a covariance at each position. The map is
the Mahalanobis distance at each position, and the score is the mean of the highest 2 % of the map. After Defard et al.,
"PaDiM" (ICPR 2021).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from core.vision.detectors.architecture import WEIGHTS, Architecture, BackboneRecord
from core.vision.detectors.backbone import load_pretrained
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import disable_tf32
from core.vision.detectors.features import FeatureExtractor, FeatureSettings, input_size, pool_maps
from core.vision.detectors.position_statistics import PositionStatistics
from core.vision.errors import InvalidBundle
from core.vision.input.preprocessing import PreparedImage, Preprocessing
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions, PreparedImages


class FeatureGaussianDetector(Detector):
    """Scores images by the distance of their features from those of good parts; about 1 is normal."""

    name: ClassVar[str] = "feature-gaussian"
    score_method = "mahalanobis-top-2-percent"

    def __init__(
        self,
        extractor: FeatureExtractor,
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
        """See `Detector.fit`. One pass, so there is nothing to resume; its losses are mean scores."""
        disable_tf32(device)
        backbone = load_pretrained(options.backbone, options.backbone_weights)
        settings = FeatureSettings(options.backbone, preprocessing.width, preprocessing.height)
        extractor = FeatureExtractor(backbone.network, settings, device)
        sample = extractor.sample(training, options.seed, augmented=True)
        extractor.fit_scale(sample)
        statistics = PositionStatistics.from_features(extractor.standardise_all(sample))
        detector = cls(
            extractor,
            statistics,
            settings,
            preprocessing,
            device=device,
            max_pixels=max_pixels,
            backbone=backbone.record,
        )
        training_loss = detector.mean_score(extractor.standardise_all(sample))
        held_out = (extractor.extract(list(minibatch)) for minibatch in validation.minibatches(64))
        on_epoch(Epoch(1, training_loss, detector.mean_score(held_out)))
        return detector

    def mean_score(self, minibatches: Iterator[Tensor]) -> float:
        """Return the mean score of images from minibatches of their standardised features."""
        return float(torch.cat([pool_maps(self._statistics.distance(features)) for features in minibatches]).mean())

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`. The map is the distance at each position of the feature grid."""
        if not images:
            return ScoredImages(np.empty(0), np.empty((0, *self._grid), dtype=np.float32))
        with torch.inference_mode():
            maps = self._statistics.distance(self._extractor.extract(images))
            return ScoredImages(pool_maps(maps).cpu().numpy(), maps.cpu().numpy())

    def save(self) -> dict[str, bytes]:
        """Return `weights.safetensors`: backbone, feature scale, and mean and whitening of each position."""
        statistics = {f"statistics.{name}": value for name, value in self._statistics.state_dict().items()}
        return {WEIGHTS: save_tensors({**self._extractor.state_dict(), **statistics})}

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
            prefix = "statistics."
            statistics = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            detector = cls(
                FeatureExtractor.from_state_dict(state, settings, device),
                PositionStatistics.from_state_dict(statistics, *settings.grid),
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
