"""What is fixed about a backbone: its layers, its input and the origin of its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from core.vision.detectors.backbones.weights import PublishedWeights


@dataclass(frozen=True)
class BackboneDescription:
    """What is fixed about a backbone.

    Attributes:
        channels: of each layer that the network returns, the finest grid first.
        build: returns the network with arbitrary weights. It maps (N, 3, height, width) to a list of layers, each
            (N, channels, rows, columns), float32.
        from_published: returns the network with the published weights, a plain state dict.
            Raises KeyError or RuntimeError if they are those of another network.
        weights: where the published weights come from.
        cell_pixels: the side of a cell of the coarsest layer, in pixels of the image. The sides of an image must be
            multiples of it.
        spread: the standard deviation of the input that the network expects; its mean is 0.
        kept_channels: how many channels of each layer are kept, see `channel_selection`; None keeps all.
    """

    channels: tuple[int, ...]
    build: Callable[[], nn.Module]
    from_published: Callable[[Mapping[str, Tensor]], nn.Module]
    weights: PublishedWeights
    cell_pixels: int = 16
    spread: float = 0.8
    kept_channels: int | None = None
