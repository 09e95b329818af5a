"""Pose: find a part that lies in any pose on an even background, turn it upright and cut it out.

The part is turned so that its long axis is horizontal. A part without a long axis, such as a square, is turned to the
rectangle of the smallest area around it, and then so that its lines, by the energy of their edges, are horizontal. Of
the two ways that remain, the heavier end is brought to the right: the end with more area if the shape tells them apart,
else the brighter one. A round part is not turned. The scale is never changed, so a part of the wrong size looks wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.vision.input.geometry import Affine
from core.vision.input.part_mask import Channels, find_part
from core.vision.input.record import Upright

_LONG: Final = 1.25
"""A part has a long axis if it is at least this many times as long as wide, by the deviations of its area."""
_MIN_FOUND: Final = 0.97
"""Share of the good parts whose pose must be found."""
_SIZES: Final = (0.75, 1.35)
"""The length, the width and the square root of the area of a part, as multiples of those of good parts."""
_MAX_SPREAD: Final = 0.15
"""Good parts whose lengths or widths differ by more than this share, in nine of ten, have no common size."""
_SAME_TURN: Final = 3.0
"""Parts whose turns have this standard deviation or less, in degrees, lie still."""
_CLEARLY: Final = 1.5
"""A shadow is left out if that makes the sizes of the parts this many times as alike."""
_ROUND: Final = 1.12
"""A part is round if the largest rectangle around it has less than this many times the area of the smallest."""
_SKEWED: Final = 0.06
_TURN_STEP: Final = 0.05
"""Degrees that turns are rounded to, so that all machines resample an image alike."""
_PLACE_STEP: Final = 1 / 4096
"""The same for places, as a share of the square root of the area of the image."""


@dataclass(frozen=True)
class Pose:
    """The pose of a part. Lengths are shares of the square root of the area of the image.

    Attributes:
        x, y: the middle of the part.
        degrees: the turn from the x axis of the image to that of the part, clockwise.
        length, width: of the part, along and across its axis.
        size: the square root of its area.
        elongation: the deviation of its area along its axis divided by that across it, at least 1.
        complete: whether it is away from the border of the image.
    """

    x: float
    y: float
    degrees: float
    length: float
    width: float
    size: float
    elongation: float
    complete: bool

    def fits(self, upright: Upright) -> bool:
        """Whether the part has about the size of good parts, and is complete if good parts are."""
        pairs = ((self.length, upright.length), (self.width, upright.width), (self.size, upright.size))
        complete = self.complete or not upright.inside
        return complete and all(_SIZES[0] <= one / usual <= _SIZES[1] for one, usual in pairs)

    def to_image(self, upright: Upright, prepared: tuple[int, int], image_size: tuple[float, float]) -> Affine:
        """Return the map from the pixels of a prepared image to those of the image.

        Args:
            upright: what is cut out.
            prepared: (width, height) of the prepared image.
            image_size: (width, height) of the image.
        """
        unit = math.sqrt(image_size[0] * image_size[1])
        width, height = upright.crop(image_size)
        centred = Affine.scaling(width / prepared[0], height / prepared[1]) @ Affine.shift(
            -prepared[0] / 2, -prepared[1] / 2
        )
        return Affine.shift(self.x * unit, self.y * unit) @ Affine.turn(self.degrees) @ centred


def find_pose(small: Channels, *, long: bool | None, shadow: bool) -> Pose | None:
    """Find the pose of the part in a small copy of an image; see `core.vision.input.part_mask.shrink`.

    Args:
        small: pixels must be square in the image as sent.
        long: whether parts of this kind have a long axis; None to decide by this part.
        shadow: whether they have a shadow.

    Returns:
        None if no part is found.
    """
    mask = find_part(small, shadow=shadow)
    if mask is None:
        return None
    rows, columns = np.nonzero(mask)
    points = np.stack([columns + 0.5, rows + 0.5], axis=1)
    spreads, axes = np.linalg.eigh(np.cov(points.T))
    elongation = math.sqrt(float(spreads[1]) / max(float(spreads[0]), 1e-6))
    grey = small.mean(axis=0)
    if elongation >= _LONG if long is None else long:
        degrees = _heavier_end(math.degrees(math.atan2(axes[1, 1], axes[0, 1])), points, grey[mask])
    else:
        rectangle = _smallest_rectangle(points)
        degrees = 0.0
        if rectangle is not None:
            degrees = _brighter_end(_with_lines_along(grey, mask, rectangle), points, grey[mask])
    degrees = _round(degrees % 360, _TURN_STEP)
    along, across = _frame(degrees)
    x, y = points @ along, points @ across
    centre = (x.min() + x.max()) / 2 * along + (y.min() + y.max()) / 2 * across
    unit = math.sqrt(mask.size)
    return Pose(
        x=_round(float(centre[0]) / unit, _PLACE_STEP),
        y=_round(float(centre[1]) / unit, _PLACE_STEP),
        degrees=degrees,
        length=(float(np.ptp(x)) + 1) / unit,
        width=(float(np.ptp(y)) + 1) / unit,
        size=math.sqrt(len(points)) / unit,
        elongation=elongation,
        complete=not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()),
    )


@dataclass(frozen=True)
class Poses:
    """The poses of good parts.

    Attributes:
        upright: what the parts have in common.
        deviation: the circular standard deviation of their turns, degrees.
        spread: how much their sizes differ from the usual one: the share that nine of ten stay below.
    """

    upright: Upright
    deviation: float
    spread: float

    @property
    def vary(self) -> bool:
        """Whether the parts lie so differently that it matters."""
        return self.deviation > _SAME_TURN


def learn_poses(images: Sequence[Channels]) -> Poses | None:
    """Learn what the parts have in common.

    Args:
        images: small copies of images of good parts, at least one; see `core.vision.input.part_mask.shrink`.

    Returns:
        None if the parts cannot be brought upright: they are not found, or differ in size.
    """
    plain, sharp = _learn(images, shadow=False), _learn(images, shadow=True)
    if plain is None or sharp is None:
        return plain or sharp
    return plain if plain.spread <= _CLEARLY * sharp.spread else sharp


def _learn(images: Sequence[Channels], *, shadow: bool) -> Poses | None:
    first = [pose for pose in (find_pose(image, long=None, shadow=shadow) for image in images) if pose is not None]
    if len(first) < _MIN_FOUND * len(images):
        return None
    long = float(np.median([pose.elongation for pose in first])) >= _LONG
    poses = [pose for pose in (find_pose(image, long=long, shadow=shadow) for image in images) if pose is not None]
    sizes = np.array([(pose.length, pose.width, pose.size) for pose in poses])
    length, width, size = np.median(sizes, axis=0).tolist()
    inside = sum(pose.complete for pose in poses) >= _MIN_FOUND * len(poses)
    upright = Upright(length=length, width=width, size=size, long=long, inside=inside, shadow=shadow)
    spread = float(np.quantile(np.abs(sizes / np.median(sizes, axis=0) - 1), 0.9))
    if spread > _MAX_SPREAD or sum(pose.fits(upright) for pose in poses) < _MIN_FOUND * len(images):
        return None
    resultant = abs(np.exp(1j * np.radians([pose.degrees for pose in poses])).mean())
    deviation = math.degrees(math.sqrt(abs(2 * math.log(min(max(float(resultant), 1e-12), 1.0)))))
    return Poses(upright, deviation, spread)


def _round(value: float, step: float) -> float:
    return round(value / step) * step


def _frame(degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors along and across an axis, in x and y."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([cosine, sine]), np.array([-sine, cosine])


def _heavier_end(degrees: float, points: NDArray[np.float64], grey: NDArray[np.float32]) -> float:
    """Return the turn, or the opposite one, so that the end with more area is at the end of the axis.

    If the area is symmetric, the brighter end is. The heavier end is the shorter one: the tail is at the other.
    """
    along, _ = _frame(degrees)
    values = (points - points.mean(axis=0)) @ along
    skewness = -float((values**3).mean()) / max(float(values.std()) ** 3, 1e-12)
    if abs(skewness) < _SKEWED:
        return _brighter_end(degrees, points, grey)
    return degrees if skewness > 0 else degrees + 180


def _brighter_end(degrees: float, points: NDArray[np.float64], grey: NDArray[np.float32]) -> float:
    """Return the turn, or the opposite one, so that the brighter end is at the end of the axis."""
    along, _ = _frame(degrees)
    values = (points - points.mean(axis=0)) @ along
    return degrees if float(((grey - grey.mean()) * values).mean()) >= 0 else degrees + 180


@lru_cache(maxsize=1)
def _directions() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the angles from 0° to 90°, in steps of a quarter degree, and their unit vectors, (angles, 2)."""
    angles = np.arange(0, 90, 0.25)
    radians = np.radians(angles)
    return angles, np.stack([np.cos(radians), np.sin(radians)], axis=1)


def _smallest_rectangle(points: NDArray[np.float64]) -> float | None:
    """Return the turn, 0 to 90 degrees, of the smallest rectangle around points (N, 2); None if they are a disc."""
    angles, along = _directions()
    hull = _outline(points)
    x, y = hull @ along.T, hull @ np.stack([-along[:, 1], along[:, 0]])
    areas = np.ptp(x, axis=0) * np.ptp(y, axis=0)
    return None if areas.max() < _ROUND * areas.min() else float(angles[int(areas.argmin())])


def _outline(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first and the last point of each row, which contain the convex hull; points are sorted by row."""
    rows = points[:, 1]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    ends = np.r_[starts[1:] - 1, len(points) - 1]
    return points[np.r_[starts, ends]]


def _with_lines_along(grey: NDArray[np.float32], mask: NDArray[np.bool_], degrees: float) -> float:
    """Return the turn, or the turn by a quarter more, so that the lines on the part run along the axis."""
    down, right = (np.asarray(slope) for slope in np.gradient(grey))
    # Pixels whose neighbours are on the part, too: the outline says nothing about the lines.
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-2, 2):
            inner &= np.roll(mask, step, axis)
    along, across = _frame(degrees)
    energies = [float(((right[inner] * vector[0] + down[inner] * vector[1]) ** 2).sum()) for vector in (along, across)]
    return degrees if energies[1] >= energies[0] else degrees + 90
