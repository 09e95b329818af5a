"""Thumbnails: small grey copies of prepared images, to compare images without a network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.vision.input.prepared_image import PreparedImage

Thumbnails = NDArray[np.float32]
"""float32, (N, D), 0 to 255; see `make_thumbnails`."""


def make_thumbnails(images: Sequence[PreparedImage], side: int = 16) -> Thumbnails:
    """Return the block means of the grey images: float32, (N, side · side), 0 to 255. Edge remainders are cut."""
    grey = np.stack([image.mean(axis=2, dtype=np.float32) for image in images])
    count, height, width = grey.shape
    side = min(side, height, width)
    rows, columns = height // side, width // side
    cropped = grey[:, : rows * side, : columns * side].reshape(count, side, rows, side, columns)
    blocks: Thumbnails = cropped.mean(axis=(2, 4), dtype=np.float64).reshape(count, side * side).astype(np.float32)
    return blocks
