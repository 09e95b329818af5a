"""The registry: every detector by the name of its architecture, and the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.vision.detectors import backbone
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.detector import Detector
from core.vision.detectors.feature_autoencoder import FeatureAutoencoderDetector
from core.vision.detectors.feature_gaussian import FeatureGaussianDetector


def detector_classes() -> Mapping[str, type[Detector]]:
    """Return every detector class by the name of its architecture."""
    classes: tuple[type[Any], ...] = (FeatureAutoencoderDetector, FeatureGaussianDetector, AutoencoderDetector)
    return {detector.name: detector for detector in classes}


def default_architecture(backbone_weights: Path | None = None) -> str:
    """Return `feature-autoencoder` if backbone weights are available, else `conv-autoencoder`."""
    return "feature-autoencoder" if backbone_weights or backbone.packaged_weights() else "conv-autoencoder"
