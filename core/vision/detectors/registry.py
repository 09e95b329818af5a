"""The registry: every detector by the name of its architecture, and the default."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.vision.detectors import backbone
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.combined import CombinedMaximumDetector, CombinedMeanDetector
from core.vision.detectors.detector import Detector
from core.vision.detectors.feature_autoencoder import FeatureAutoencoderDetector
from core.vision.detectors.feature_gaussian import FeatureGaussianDetector
from core.vision.detectors.memory_bank import MemoryBankDetector

AUTO: Final = "auto"
"""Stands for the detector that fits the images best."""


def detector_classes() -> Mapping[str, type[Detector]]:
    """Return every detector class by the name of its architecture."""
    classes: tuple[type[Any], ...] = (
        FeatureAutoencoderDetector,
        FeatureGaussianDetector,
        MemoryBankDetector,
        CombinedMaximumDetector,
        CombinedMeanDetector,
        AutoencoderDetector,
    )
    return {detector.name: detector for detector in classes}


def default_architecture(chosen_backbone: str | None = None, backbone_weights: Path | None = None) -> str:
    """Return `auto` if a backbone is chosen or has its weights, else `conv-autoencoder`."""
    return AUTO if chosen_backbone or backbone_weights or backbone.packaged_weights() else "conv-autoencoder"
