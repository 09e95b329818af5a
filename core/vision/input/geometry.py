"""Affine maps between images, and images resampled by them."""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]
"""float64, (…, 2): x to the right and y down, in pixels. Pixel (column, row) covers column to column + 1."""

_SUPPORT = 3
"""Pixels around a box that bicubic interpolation reads, rounded up."""


@dataclass(frozen=True)
class Affine:
    """Maps a point (x, y) to (xx · x + xy · y + x0, yx · x + yy · y + y0); see `Points`."""

    xx: float
    xy: float
    x0: float
    yx: float
    yy: float
    y0: float

    @classmethod
    def scaling(cls, x: float, y: float) -> Self:
        """Return the map that multiplies x and y by these factors."""
        return cls(x, 0.0, 0.0, 0.0, y, 0.0)

    @classmethod
    def shift(cls, x: float, y: float) -> Self:
        """Return the map that adds x and y."""
        return cls(1.0, 0.0, x, 0.0, 1.0, y)

    @classmethod
    def turn(cls, degrees: float) -> Self:
        """Return the turn about (0, 0) from the x axis towards the y axis: clockwise, as images are displayed."""
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return cls(cosine, -sine, 0.0, sine, cosine, 0.0)

    def __matmul__(self, inner: "Affine") -> "Affine":
        """Return the map that applies `inner` first and this one afterwards."""
        return Affine(
            self.xx * inner.xx + self.xy * inner.yx,
            self.xx * inner.xy + self.xy * inner.yy,
            self.xx * inner.x0 + self.xy * inner.y0 + self.x0,
            self.yx * inner.xx + self.yy * inner.yx,
            self.yx * inner.xy + self.yy * inner.yy,
            self.yx * inner.x0 + self.yy * inner.y0 + self.y0,
        )

    def inverse(self) -> "Affine":
        """Return the map back.

        Raises:
            ValueError: the map loses a dimension.
        """
        area = self.xx * self.yy - self.xy * self.yx
        if area == 0 or not math.isfinite(area):
            raise ValueError("an affine map without an area has no inverse")
        xx, xy, yx, yy = self.yy / area, -self.xy / area, -self.yx / area, self.xx / area
        return Affine(xx, xy, -(xx * self.x0 + xy * self.y0), yx, yy, -(yx * self.x0 + yy * self.y0))

    def apply(self, points: Points) -> Points:
        """Map points, (…, 2)."""
        x, y = points[..., 0], points[..., 1]
        return np.stack([self.xx * x + self.xy * y + self.x0, self.yx * x + self.yy * y + self.y0], axis=-1)

    @property
    def coefficients(self) -> tuple[float, float, float, float, float, float]:
        """All numbers, in the order in which Pillow takes them."""
        return self.xx, self.xy, self.x0, self.yx, self.yy, self.y0

    def about(self, x: float, y: float) -> "Affine":
        """Return this map with the origin moved to (x, y)."""
        return Affine.shift(x, y) @ self @ Affine.shift(-x, -y)


IDENTITY: Final = Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def corners(width: float, height: float) -> Points:
    """Return the four corners of an image: float64, (4, 2)."""
    return np.array([(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)])


def resample(
    image: Image.Image,
    to_image: Affine,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Return the part of an image that an affine map names, interpolated. Beyond its edges, these are repeated.

    Shrinking is not antialiased: reduce the image first.

    Args:
        image: of mode L, F or RGB.
        to_image: maps the pixels of the result to those of the image.
        size: (width, height) of the result in pixels.
    """
    reached = to_image.apply(corners(*size))
    (left, top), (right, bottom) = np.floor(reached.min(axis=0)) - _SUPPORT, np.ceil(reached.max(axis=0)) + _SUPPORT
    # The nearest pixels within the image, at least one, so that a part beyond the image is its edge.
    box = (
        int(min(max(left, 0), image.width - 1)),
        int(min(max(top, 0), image.height - 1)),
        int(max(min(right, image.width), 1)),
        int(max(min(bottom, image.height), 1)),
    )
    part = image.crop(box)
    before = [max(round(box[0] - left), 0), max(round(box[1] - top), 0)]
    after = [max(round(right - box[2]), 0), max(round(bottom - box[3]), 0)]
    if any(before) or any(after):
        rows_columns = [(before[1], after[1]), (before[0], after[0])]
        depth = [(0, 0)] if image.mode == "RGB" else []
        part = Image.fromarray(np.pad(np.asarray(part), [*rows_columns, *depth], mode="edge"))
    moved = Affine.shift(before[0] - box[0], before[1] - box[1]) @ to_image
    return part.transform(size, Image.Transform.AFFINE, moved.coefficients, resampling)


def covered(to_image: Affine, size: tuple[int, int], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of the result of `resample` lie within the image: (height, width)."""
    width, height = size
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    column = to_image.xx * x + (to_image.xy * y + to_image.x0)
    row = to_image.yx * x + (to_image.yy * y + to_image.y0)
    inside: NDArray[np.bool_] = (column >= 0) & (column <= image_size[0]) & (row >= 0) & (row <= image_size[1])
    return inside
