"""The options that the api offers are those that the detectors have."""

from typing import get_args

from core.models.training_options import ArchitectureChoice, BackboneChoice, ScoreMethod
from core.vision.detectors.autoencoder import MSE, Z_MAP
from core.vision.detectors.backbone import BACKBONES
from core.vision.detectors.registry import AUTO, detector_classes


def test_the_names_are_those_of_the_detectors() -> None:
    assert get_args(ArchitectureChoice) == (AUTO, *detector_classes())
    assert get_args(BackboneChoice) == BACKBONES
    assert get_args(ScoreMethod) == (MSE, Z_MAP)
