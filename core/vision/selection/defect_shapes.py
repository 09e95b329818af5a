"""The shapes of synthetic defects: how much each pixel of an area is covered, smooth below the size of a pixel."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.spatial import KDTree

Coverage = NDArray[np.float32]
"""How much of each pixel a defect covers: float32, (rows, columns) of an area, 0 to 1."""

_CURVE_LENGTH = (0.2, 0.9)
"""The length of a curve in sides of the part."""
_CURVE_POINTS = 600
_FADE = 0.15
"""The share of a curve over which it fades at each end."""


@dataclass(frozen=True)
class Area:
    """The pixels around a defect, and their places in units of the part.

    Attributes:
        window: the rows and columns in the image.
        x, y: float32, (rows, columns): from the centre of the defect to the centre of each pixel, in sides of the part.
        scale: the side of the part, pixels; the geometric mean if pixels are not square.
    """

    window: tuple[slice, slice]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    scale: float

    @classmethod
    def around(cls, row: int, column: int, shape: tuple[int, int], width: float, height: float, reach: float) -> Self:
        """Return the area around a pixel, cut off at the border of the image.

        Args:
            row, column: of the pixel.
            shape: (rows, columns) of the image.
            width, height: the side of the part in columns and in rows.
            reach: the distance from the pixel, in sides of the part.
        """
        rows = _around(row, int(np.ceil(reach * height)) + 2, shape[0])
        columns = _around(column, int(np.ceil(reach * width)) + 2, shape[1])
        y, x = np.mgrid[rows, columns].astype(np.float32)
        return cls((rows, columns), (x - column) / width, (y - row) / height, float(np.sqrt(width * height)))

    @property
    def pixel(self) -> float:
        """The side of a pixel in sides of the part."""
        return 1 / self.scale

    def moved_to(self, row: int, column: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Return a window of the same size around another pixel, moved into the image where it would leave it."""
        lengths = self.x.shape
        starts = (
            min(max(center - length // 2, 0), limit - length)
            for center, length, limit in zip((row, column), lengths, shape, strict=False)
        )
        top, left = starts
        return slice(top, top + lengths[0]), slice(left, left + lengths[1])


def _around(center: int, reach: int, limit: int) -> slice:
    return slice(max(center - reach, 0), min(center + reach + 1, limit))


def draw_blob(
    area: Area, size: float, random: Generator, *, irregularity: float, softness: tuple[float, float]
) -> Coverage:
    """Draw a roundish area: an ellipse with a wavy outline and a soft edge.

    Args:
        area: the pixels around it.
        size: its mean diameter, in sides of the part.
        random: for its shape.
        irregularity: the amplitude of the longest wave of the outline, as a share of the radius.
        softness: from the narrowest to the widest edge, as a share of the radius.
    """
    angle, elongation = random.uniform(0, np.pi), random.uniform(1, 1.5) ** 0.5
    x = (area.x * np.cos(angle) + area.y * np.sin(angle)) / elongation
    y = (area.y * np.cos(angle) - area.x * np.sin(angle)) * elongation
    direction = np.arctan2(y, x)
    outline = np.ones_like(x)
    for waves in range(2, 7):
        amplitude, phase = random.normal(0, irregularity * 2 / waves), random.uniform(0, 2 * np.pi)
        outline += np.float32(amplitude) * np.cos(waves * direction + phase)
    edge = max(random.uniform(*softness) * size / 2, area.pixel)
    linear = (0.5 + (size / 2 * outline.clip(0.4, 1.6) - np.hypot(x, y)) / edge).clip(0, 1)
    covered = min(1.0, (size / area.pixel) ** 2)  # of one pixel, by a blob that is smaller than it
    coverage: Coverage = (covered * linear**2 * (3 - 2 * linear)).astype(np.float32)
    return coverage


def draw_shard(area: Area, size: float, random: Generator) -> Coverage:
    """Draw an angular area with sharp edges, `size` sides of the part across."""
    corners = int(random.integers(4, 7))
    inside = np.full(area.x.shape, np.inf, dtype=np.float32)
    for number in range(corners):
        angle = 2 * np.pi * (number + random.uniform(-0.25, 0.25)) / corners
        distance = size / 2 * random.uniform(0.6, 1.0)
        inside = np.minimum(inside, distance - area.x * np.cos(angle) - area.y * np.sin(angle))
    covered = min(1.0, (size / area.pixel) ** 2)
    return (covered * (0.5 + inside / area.pixel).clip(0, 1)).astype(np.float32)


def draw_curve(area: Area, size: float, random: Generator) -> Coverage:
    """Draw a thin curve that is `size` sides of the part wide, varies along its length and fades at its ends."""
    length = random.uniform(*_CURVE_LENGTH)
    along = np.linspace(0, 1, _CURVE_POINTS)
    heading = random.uniform(0, 2 * np.pi) + random.normal(0, 0.5) * along
    for waves in (1, 2, 5):
        heading += random.normal(0, 0.2 / waves) * np.sin(2 * np.pi * waves * along + random.uniform(0, 2 * np.pi))
    step = length / _CURVE_POINTS
    points = np.stack([np.cumsum(np.cos(heading)), np.cumsum(np.sin(heading))], axis=1) * step
    points -= points[_CURVE_POINTS // 2]
    strength = np.minimum(np.minimum(along, 1 - along) / _FADE, 1)
    strength *= 0.8 + 0.2 * np.sin(2 * np.pi * random.uniform(1, 4) * along + random.uniform(0, 2 * np.pi))
    reach = size / 2 + area.pixel
    places = np.stack([area.x, area.y], axis=2)
    near = ((places >= points.min(axis=0) - reach) & (places <= points.max(axis=0) + reach)).all(axis=2)
    found = KDTree(points).query(places[near], distance_upper_bound=reach)
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    # The mean coverage of a pixel at this distance from the middle of a straight line, also of one narrower than it.
    covered = (0.5 + (size / 2 - distance) / area.pixel).clip(0, min(1.0, size / area.pixel))
    coverage = np.zeros(area.x.shape, dtype=np.float32)
    coverage[near] = np.append(strength, 0.0)[nearest] * np.where(np.isfinite(distance), covered, 0)
    return coverage
