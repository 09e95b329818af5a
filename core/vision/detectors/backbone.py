"""Backbones: frozen networks, pretrained on ImageNet and the like, whose middle layers give detectors the features of
an image.

Three layers are used. Earlier layers mostly describe brightness, later layers mostly the kind of object. The weights
come from an installed package, a file or a download. The bundle contains them, so a worker downloads nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from core.vision.detectors.architecture import BackboneRecord
from core.vision.detectors.backbones import efficientnet_lite, torchvision_layers, vision_transformer
from core.vision.detectors.backbones.channel_selection import ChannelSelection, draw_selection
from core.vision.detectors.backbones.description import BackboneDescription
from core.vision.detectors.backbones.efficientnet_lite import LITE0
from core.vision.detectors.backbones.weights import PackagedWeights, WeightsNotFound, read_weights

__all__ = [
    "BACKBONES",
    "LITE0",
    "Backbone",
    "WeightsNotFound",
    "build_backbone",
    "describe",
    "load_pretrained",
    "packaged_weights",
]

_DESCRIPTIONS: Final[Mapping[str, BackboneDescription]] = {
    **efficientnet_lite.DESCRIPTIONS,
    **torchvision_layers.DESCRIPTIONS,
    **vision_transformer.DESCRIPTIONS,
}
BACKBONES: Final = tuple(_DESCRIPTIONS)
"""The names that `--backbone` accepts; the first is the default."""


@dataclass(frozen=True)
class Backbone:
    """A network with its weights.

    Attributes:
        network: maps (N, 3, height, width), of mean 0 and the standard deviation `spread` of its description, to a list
            of layers, each (N, channels, rows, columns).
        record: its name and the origin of its weights, for the manifest.
    """

    network: nn.Module
    record: BackboneRecord


def describe(name: str) -> BackboneDescription:
    """Return what is fixed about a backbone.

    Raises:
        ValueError: there is no such backbone.
    """
    try:
        return _DESCRIPTIONS[name]
    except KeyError:
        raise ValueError(f"the backbone must be one of {', '.join(BACKBONES)}, not {name!r}") from None


def build_backbone(name: str, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build a backbone.

    Args:
        name: one of `BACKBONES`.
        state: weights from a bundle; None leaves the network without weights, on the meta device.

    Raises:
        ValueError: there is no such backbone, or the weights are not those of this backbone.
    """
    description = describe(name)
    with torch.device("meta"):
        network = description.build()
        if description.kept_channels is not None:
            shape = (len(description.channels), description.kept_channels)
            network = ChannelSelection(network, torch.empty(shape, dtype=torch.int64))
    if state is not None:
        try:
            network.load_state_dict(dict(state), assign=True)
        except RuntimeError as error:
            raise ValueError(f"the weights are not those of {name}: {str(error).splitlines()[0]}") from error
        if isinstance(network, ChannelSelection):
            network.check(description.channels)
    return network.eval().requires_grad_(False)


def packaged_weights(name: str = LITE0) -> Path | None:
    """Return the file with the weights of a backbone if their package is installed. Does not import the package."""
    weights = describe(name).weights
    return weights.installed() if isinstance(weights, PackagedWeights) else None


def load_pretrained(name: str | None, weights: Path | None, *, seed: int = 0) -> Backbone:
    """Load a backbone with its pretrained weights.

    Args:
        name: one of `BACKBONES`; None for the default.
        weights: a file with the published weights of this network. None takes those of the installed package or of
            torch's cache, or else downloads them.
        seed: of the choice of channels, for backbones that keep only some.

    Raises:
        WeightsNotFound: there are no weights, or they belong to another network.
        ValueError: there is no such backbone.
    """
    name = name or LITE0
    description = describe(name)
    published = description.weights
    path = weights or published.find()
    state, sha256 = read_weights(path)
    try:
        network = description.from_published(state)
    except (KeyError, RuntimeError) as error:
        raise WeightsNotFound(
            f"{path} does not hold the weights of {name}: name another file or another --backbone"
        ) from error
    if description.kept_channels is not None:
        network = ChannelSelection(network, draw_selection(description.channels, description.kept_channels, seed))
    record = BackboneRecord(
        name=name,
        source=path.name if weights else published.source,
        licence="unknown: a file was given" if weights else published.licence,
        sha256=sha256,
    )
    return Backbone(network.eval().requires_grad_(False), record)
