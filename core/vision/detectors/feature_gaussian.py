"""The baseline: how far the features of each position lie from those of good parts. No network is trained.

An image's features come from a frozen backbone; at each position good parts have a mean and a covariance. The map is
the Mahalanobis distance of each position, the score the mean of its top 2 %. After Defard et al., "PaDiM" (ICPR 2021).
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
from core.vision.training.options import Checkpoint, Epoch, FitOptions, PreparedImages


class FeatureGaussianDetector(Detector):
    """Scores by the distance of features from those that good parts show at the same position; about 1 is normal."""

    name: ClassVar[str] = "feature-gaussian"
    score_method = "mahalanobis-top-2-percent"

    def __init__(
        self,
        features: FeatureExtractor,
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
        self._features = features
        self._statistics = statistics.to(device)
        self._grid = settings.grid

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """See `Detector.input_size`: the image's own shape, of the area of 256 × 256."""
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
        """See `Detector.fit`. One pass, so that there is nothing to resume; its losses are mean scores."""
        disable_tf32(device)
        found = load_pretrained(options.backbone, options.backbone_weights)
        settings = FeatureSettings(options.backbone, preprocessing.width, preprocessing.height)
        features = FeatureExtractor(found.network, settings, device)
        gathered = features.gather(training, options.seed, vary=True)
        features.learn_scale(gathered)
        statistics = PositionStatistics.of(features.minibatches(gathered))
        detector = cls(
            features,
            statistics,
            settings,
            preprocessing,
            device=device,
            max_pixels=max_pixels,
            backbone=found.record,
        )
        losses = [detector.mean_score(features.minibatches(gathered))]
        losses.append(detector.mean_score(features.of(list(some)) for some in validation.minibatches(64)))
        on_epoch(Epoch(1, *losses))
        return detector

    def mean_score(self, features: Iterator[Tensor]) -> float:
        """The mean score of images whose standardised features come in minibatches."""
        return float(torch.cat([pool_maps(self._statistics.distance(some)) for some in features]).mean())

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`. The map is the distance at each position of the features' grid."""
        if not images:
            return ScoredImages(np.empty(0), np.empty((0, *self._grid), dtype=np.float32))
        with torch.inference_mode():
            maps = self._statistics.distance(self._features.of(images))
            return ScoredImages(pool_maps(maps).cpu().numpy(), maps.cpu().numpy())

    def save(self) -> dict[str, bytes]:
        """`weights.safetensors`: the backbone, the channels' scale, means and whitening of each position."""
        statistics = {f"statistics.{name}": value for name, value in self._statistics.state_dict().items()}
        return {WEIGHTS: save_tensors({**self._features.state_dict(), **statistics})}

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
            own = {name.removeprefix("statistics."): value for name, value in state.items()}
            detector = cls(
                FeatureExtractor.from_state_dict(state, settings, device),
                PositionStatistics.from_state_dict(own, *settings.grid),
                settings,
                preprocessing,
                device=device,
                max_pixels=max_pixels,
            )
            # A first image: parts that do not fit each other fail here.
            detector.score([np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)])
            return detector
        except torch.OutOfMemoryError:  # the device is at fault, not the bundle
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InvalidBundle(f"the bundle's {cls.name} cannot be built: {error}") from error
