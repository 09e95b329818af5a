"""Put an anomaly map back onto the image as it was sent."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.vision.input.geometry import Affine
from core.vision.input.prepared_image import SizedImage

_MAX_CELLS: Final = 1024
"""The most cells of a map along a side."""


def place_map(anomaly_map: NDArray[np.float32], prepared: SizedImage) -> NDArray[np.float32]:
    """Return the map over the whole image as sent; 0 beyond what the prepared image shows.

    The map of an image that was only resized is returned as it is, because its cells divide the whole image evenly.
    Otherwise the cells of the result have about the size of those of the map, and the highest value is kept.

    Args:
        anomaly_map: float32, (rows, columns), over the prepared image.
        prepared: the image.
    """
    if prepared.placed is None:
        return anomaly_map
    rows, columns = anomaly_map.shape
    height, width = prepared.pixels.shape[:2]
    cell_to_image = prepared.placed @ Affine.scaling(width / columns, height / rows)
    cell = min(np.hypot(cell_to_image.xx, cell_to_image.yx), np.hypot(cell_to_image.xy, cell_to_image.yy))
    cell = max(cell, max(prepared.width, prepared.height) / _MAX_CELLS)
    size = (max(round(prepared.width / cell), 1), max(round(prepared.height / cell), 1))
    to_map = cell_to_image.inverse() @ Affine.scaling(prepared.width / size[0], prepared.height / size[1])
    # A border of copies, because interpolation would fade the outermost cells.
    padded = Image.fromarray(np.pad(anomaly_map, 1, mode="edge"))
    moved = (Affine.shift(1, 1) @ to_map).coefficients
    placed = np.array(padded.transform(size, Image.Transform.AFFINE, moved, Image.Resampling.BILINEAR))
    placed[~_inside(to_map, size, (columns, rows))] = 0
    row, column = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    x, y = to_map.inverse().apply(np.array([column + 0.5, row + 0.5]))
    placed[int(min(max(y, 0), size[1] - 1)), int(min(max(x, 0), size[0] - 1))] = anomaly_map.max()
    return placed


def _inside(to_map: Affine, size: tuple[int, int], map_size: tuple[int, int]) -> NDArray[np.bool_]:
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    columns, rows = np.moveaxis(to_map.apply(np.stack([x, y], axis=-1)), -1, 0)
    inside: NDArray[np.bool_] = (columns >= 0) & (columns <= map_size[0]) & (rows >= 0) & (rows <= map_size[1])
    return inside
