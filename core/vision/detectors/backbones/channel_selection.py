"""A fixed random choice of the channels of a wide backbone.

The statistics of a position hold a matrix of channels × channels. For the 2,560 channels of a wide ResNet at 256 × 256
pixels that would be 5 GB; for 288 it is 65 MB. Neighbouring channels of such networks say much the same: Defard et al.,
"PaDiM" (ICPR 2021), lost next to nothing when they kept 100 of 448 channels, or 550 of 1,792, chosen at random, and
random channels were better than principal components. The bundle contains the choice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChannelSelection(nn.Module):
    """Returns some of the channels of each layer of a network.

    Attributes:
        selection: int64, (layers, kept), the indices of the channels.
    """

    selection: Tensor

    def __init__(self, network: nn.Module, selection: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("selection", selection)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, 3, height, width) to layers with `kept` channels each."""
        layers = self.network(x)
        return [layer.index_select(1, chosen) for layer, chosen in zip(layers, self.selection, strict=True)]

    def check(self, channels: Sequence[int]) -> None:
        """Check that the selection fits layers with so many channels; a GPU would fail on a wrong index for good.

        Raises:
            ValueError: it does not.
        """
        last = torch.tensor(channels)[:, None] - 1
        if self.selection.dtype != torch.int64 or not bool(((self.selection >= 0) & (self.selection <= last)).all()):
            raise ValueError("the selection of channels does not fit the network")


def draw_selection(channels: Sequence[int], kept: int, seed: int) -> Tensor:
    """Draw `kept` of the channels of each layer, in ascending order: int64, (layers, kept)."""
    random = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(count, generator=random)[:kept].sort().values for count in channels])
