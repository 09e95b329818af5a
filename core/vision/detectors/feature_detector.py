"""The base of the detectors that learn a model of the features of good parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from core.vision.detectors.architecture import WEIGHTS, Architecture, BackboneRecord
from core.vision.detectors.backbone import build_backbone, load_pretrained
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import disable_tf32
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings, with_prefix
from core.vision.detectors.features import FeatureExtractor, input_size, training_features
from core.vision.detectors.pooling import pool_maps, pooling_name
from core.vision.errors import InvalidBundle
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.record import Preprocessing
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions, PreparedImages
from core.vision.training.folds import Folds

_BACKBONE = "backbone."


class FeatureDetector(Detector):
    """Scores images by a model of the features of a frozen backbone.

    A subclass names its model; the model makes the map, and its highest cells are the score.

    Attributes:
        model_class: what it learns.
    """

    aligned: ClassVar[bool] = True
    model_class: ClassVar[type[FeatureModel]]

    def __init__(
        self,
        extractor: FeatureExtractor,
        model: FeatureModel,
        settings: FeatureSettings,
        preprocessing: Preprocessing,
        *,
        max_pixels: int,
        backbone: BackboneRecord | None = None,
    ) -> None:
        if (preprocessing.width, preprocessing.height) != (settings.width, settings.height):
            raise ValueError("the image size of the preprocessing is not that of the network")
        disable_tf32(extractor.device)
        self.architecture = Architecture(name=self.name, settings=asdict(settings))
        self.score_method = f"{model.measure}-{pooling_name(settings.pooling)}"
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels
        self.device = extractor.device
        self.backbone = backbone
        self.facts = model.facts
        self._extractor = extractor
        self._model = model
        self._pooling = settings.pooling

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None, backbone: str) -> tuple[int, int]:
        """See `Detector.input_size`. Keeps the image's aspect ratio; by default the area of 256 × 256 pixels."""
        return input_size(size, side, backbone)

    @classmethod
    def folds(cls) -> int:
        """See `Detector.folds`."""
        return cls.model_class.folds

    @classmethod
    def cross_fit(
        cls,
        images: PreparedImages,
        folds: Folds,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> CrossFitted[Self]:
        """See `Detector.cross_fit`. The features of each image are computed once for all folds."""
        disable_tf32(device)
        backbone = load_pretrained(options.backbone_name, options.backbone_weights, seed=options.seed)
        pooling = cls.model_class.default_pooling if options.pooling is None else options.pooling
        settings = FeatureSettings(options.backbone_name, preprocessing.width, preprocessing.height, pooling)
        extractor = FeatureExtractor(backbone.network, options.backbone_name, device)
        collector = cls.model_class.collector(settings, options.seed, device)
        for batch in training_features(extractor, images, options.seed, preprocessing.alignment):
            collector.add(batch)
        fitted = collector.fit(CrossFit(folds, options, device, on_epoch, checkpoint))
        detector = partial(
            cls,
            extractor,
            settings=settings,
            preprocessing=preprocessing,
            max_pixels=max_pixels,
            backbone=backbone.record,
        )
        return CrossFitted(detector(fitted.final), [detector(model) for model in fitted.held_out])

    def compile(self) -> None:
        """See `Detector.compile`."""
        self._extractor.compile((self.preprocessing.width, self.preprocessing.height))

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`. The map has one cell for each cell of the model's grid."""
        if not images:
            return self._score_none()
        with torch.inference_mode():
            maps = self._model.maps(self._extractor.layers(images))
            return ScoredImages(pool_maps(maps, self._pooling).cpu().numpy(), maps.cpu().numpy())

    def _score_none(self) -> ScoredImages:
        blank = np.zeros((self.preprocessing.height, self.preprocessing.width, 3), np.uint8)
        scored = self.score([blank])
        return ScoredImages(scored.scores[:0], scored.maps[:0])

    def save(self) -> dict[str, bytes]:
        """Return `weights.safetensors`: the backbone as `backbone.*`, and the model."""
        weights = self._extractor.network.state_dict().items()
        backbone = {f"{_BACKBONE}{name}": value.cpu().contiguous() for name, value in weights}
        return {WEIGHTS: save_tensors({**backbone, **self._model.state_dict()})}

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
            settings = cls._settings(architecture.settings)
            state = load_tensors(files[WEIGHTS])
            network = build_backbone(settings.backbone, with_prefix(state, _BACKBONE))
            extractor = FeatureExtractor(network, settings.backbone, device)
            model = cls._load_model(state, settings).to(device)
            detector = cls(extractor, model, settings, preprocessing, max_pixels=max_pixels)
            # Score an image now, so that weights that do not fit together fail here and not in production.
            detector.score([np.zeros((preprocessing.height, preprocessing.width, 3), np.uint8)])
            return detector
        except torch.OutOfMemoryError:  # the device is at fault, not the bundle
            raise
        except (KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            raise InvalidBundle(f"the bundle's {cls.name} cannot be built: {error}") from error

    @classmethod
    def _settings(cls, recorded: Mapping[str, Any]) -> FeatureSettings:
        return FeatureSettings(**recorded)

    @classmethod
    def _load_model(cls, state: Mapping[str, torch.Tensor], settings: FeatureSettings) -> FeatureModel:
        return cls.model_class.from_state_dict(state, settings)
