"""Pooling: from an anomaly map to a score."""

import math
from typing import Final

import torch
from torch import Tensor

POOLINGS: Final = (0.0, 0.005, 0.02, 0.05)
"""The shares of the highest cells that a score may be the mean of; 0 is the highest cell alone."""
DEFAULT_POOLING: Final = 0.02


def pool_maps(maps: Tensor, share: float = DEFAULT_POOLING) -> Tensor:
    """Return the score of each map (N, rows, columns): the mean of its highest cells; float64, (N,).

    The highest cell alone finds the smallest defects but follows single outliers; the mean of the whole map would
    dilute small defects.

    Args:
        share: of the cells, 0 to 1; at least one cell is used.
    """
    cells = maps.flatten(1)
    count = max(math.floor(share * cells.shape[1] + 0.5), 1)
    return cells.topk(count, dim=1).values.mean(dim=1, dtype=torch.float64)


def pooling_name(share: float) -> str:
    """Return the name of a pooling for a score method: `maximum` or, for example, `top-0.5-percent`."""
    return "maximum" if share == 0 else f"top-{100 * share:g}-percent"
