"""The registry: every detector by the name of its architecture, and which one is the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.vision.detectors import backbone
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.detector import Detector
from core.vision.detectors.feature_autoencoder import FeatureAutoencoderDetector
from core.vision.detectors.feature_gaussian import FeatureGaussianDetector


def detector_classes() -> Mapping[str, type[Detector]]:
    """Every detector there is, by the name of its architecture."""
    kinds: tuple[type[Any], ...] = (FeatureAutoencoderDetector, FeatureGaussianDetector, AutoencoderDetector)
    return {kind.name: kind for kind in kinds}


def default_architecture(backbone_weights: Path | None = None) -> str:
    """`feature-autoencoder` where a backbone's weights are at hand, else what is trained from scratch."""
    return "feature-autoencoder" if backbone_weights or backbone.packaged_weights() else "conv-autoencoder"
