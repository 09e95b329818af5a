"""Networks of torchvision: three layers of each, with cells of 8, 8 or 16, and 16 pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from core.vision.detectors.backbones.description import BackboneDescription
from core.vision.detectors.backbones.weights import DownloadedWeights


class TorchvisionLayers(nn.Module):
    """Returns the chosen layers of a torchvision network as a list."""

    def __init__(self, name: str, layers: tuple[str, ...]) -> None:
        import torchvision  # takes seconds to import and is rarely needed
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.layers = create_feature_extractor(torchvision.models.get_model(name), list(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.layers(x).values())


@dataclass(frozen=True)
class TorchvisionWeights:
    """Weights that torchvision publishes.

    Attributes:
        network: torchvision's name of the network.
        version: torchvision's name of the weights.
    """

    network: str
    version: str = "DEFAULT"
    source: str = "torchvision"
    licence: str = "BSD-3-Clause (torchvision); trained on ImageNet"

    def find(self) -> Path:
        """See `PublishedWeights.find`."""
        import torchvision  # takes seconds to import and is rarely needed

        weights: Any = torchvision.models.get_model_weights(self.network)[self.version]
        prefix = weights.url.rpartition("-")[2].removesuffix(".pth")  # torchvision names files by their checksums
        return DownloadedWeights(self.source, weights.url, prefix, self.licence).find()


def _from_published(published: Mapping[str, Tensor], *, name: str, layers: tuple[str, ...]) -> TorchvisionLayers:
    with torch.device("meta"):
        network = TorchvisionLayers(name, layers)
    used = network.layers.state_dict()
    state = {key: value.to(used[key].dtype) for key, value in published.items() if key in used}
    network.layers.load_state_dict(state, assign=True)
    return network


def _describe(
    name: str,
    layers: tuple[str, ...],
    channels: tuple[int, ...],
    *,
    version: str = "DEFAULT",
    kept_channels: int | None = None,
) -> BackboneDescription:
    return BackboneDescription(
        channels=channels,
        build=partial(TorchvisionLayers, name, layers),
        from_published=partial(_from_published, name=name, layers=layers),
        weights=TorchvisionWeights(name, version),
        kept_channels=kept_channels,
    )


DESCRIPTIONS: Final = {
    "efficientnet_b0": _describe("efficientnet_b0", ("features.3", "features.4", "features.5"), (40, 80, 112)),
    "mobilenet_v3_large": _describe("mobilenet_v3_large", ("features.6", "features.10", "features.12"), (40, 80, 112)),
    "resnet18": _describe("resnet18", ("layer2.0", "layer2.1", "layer3"), (128, 128, 256)),
    # The second and third stage, as in Roth et al., "PatchCore" (CVPR 2022), with the weights of that time.
    "wide_resnet50_2": _describe(
        "wide_resnet50_2",
        ("layer2.3", "layer3.2", "layer3.5"),
        (512, 1024, 1024),
        version="IMAGENET1K_V1",
        kept_channels=96,
    ),
}
