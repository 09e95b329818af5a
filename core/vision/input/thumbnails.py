"""Thumbnails: small grey copies of prepared images, for comparing images without a network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.vision.input.preprocessing import PreparedImage

Thumbnails = NDArray[np.float32]
"""See `thumbnails`."""


def make_thumbnails(images: Sequence[PreparedImage], side: int = 16) -> Thumbnails:
    """Block means of the grey images: float32, (N, side · side), 0 to 255. Remainders at the edges are left out."""
    grey = np.stack([image.mean(axis=2, dtype=np.float32) for image in images])
    count, height, width = grey.shape
    side = min(side, height, width)
    rows, columns = height // side, width // side
    cut = grey[:, : rows * side, : columns * side].reshape(count, side, rows, side, columns)
    blocks: Thumbnails = cut.mean(axis=(2, 4), dtype=np.float64).reshape(count, side * side).astype(np.float32)
    return blocks
