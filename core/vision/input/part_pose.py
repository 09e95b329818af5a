"""Pose: find a part that lies in any pose on an even background, turn it upright and cut it out.

What is turned to the horizontal is learned from good parts, the first of these that tells their turns apart:

- the long axis of the area ("area");
- the longer side of the rectangle of the smallest area around the part ("sides");
- nothing, if the parts are round ("none");
- the side of that rectangle along which the lines on the part run, by the energy of their edges ("lines").

Of the two ways that remain, the heavier end is brought to the right: the end with more area if the shape tells them
apart, else the brighter one. The scale is never changed, so a part of the wrong size looks wrong.
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
from core.vision.input.record import Axis, Upright

_LONG: Final = 1.25
"""A part has a long axis if it is at least this many times as long as wide, by the deviations of its area."""
_OBLONG: Final = 1.08
"""The sides of a rectangle tell them apart if one is at least this many times as long as the other."""
_ROUND: Final = 1.12
"""A part is round if the largest rectangle around it has less than this many times the area of the smallest. Discs have
up to 1.09, because of their pixels."""
_SKEWED: Final = 0.06
"""The skewness of the area along the axis from which on the shape tells the ends apart."""
_MIN_FOUND: Final = 0.97
"""Share of the good parts whose pose must be found; of a few parts, one may be missing."""
_SIZES: Final = (0.75, 1.35)
"""The length, the width and the square root of the area of a part, as multiples of those of good parts."""
_MAX_SPREAD: Final = 0.15
"""Good parts whose lengths or widths differ by more than this share, in nine of ten, have no common size."""
_SAME_TURN: Final = 3.0
_SAME_PLACE: Final = 0.05
"""Parts lie still if their turns have this standard deviation or less, in degrees, and their places, as a share of the
square root of the area of the part."""
_SURE: Final = 2.0
"""What tells two turns apart is certain if its mean is at least this many standard deviations. That of the absolute
value of a normal distribution around 0 is 1.32."""
_CLEARLY: Final = 0.02
"""A shadow is left out if the sizes of the parts then differ by this share less. Pixels alone make them differ by about
as much."""
_TURN_STEP: Final = 0.05
"""Degrees that turns are rounded to, so that all machines resample an image alike."""
_PLACE_STEP: Final = 1 / 4096
"""The same for places, as a share of the sides of the image."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """The pose of a part. Lengths are shares of the square root of the area of the image.

    Attributes:
        x, y: the middle of the part, as shares of the width and of the height of the image.
        degrees: the turn from the x axis of the image to that of the part, clockwise.
        length, width: of the part, along and across its axis.
        size: the square root of its area.
        complete: whether it is away from the border of the image.
    """

    x: float
    y: float
    degrees: float
    length: float
    width: float
    size: float
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
        width, height = upright.crop(image_size)
        centred = Affine.scaling(width / prepared[0], height / prepared[1]) @ Affine.shift(
            -prepared[0] / 2, -prepared[1] / 2
        )
        return Affine.shift(self.x * image_size[0], self.y * image_size[1]) @ Affine.turn(self.degrees) @ centred


def find_pose(small: Channels, upright: Upright) -> Pose | None:
    """Find the pose of the part in a small copy of an image; see `core.vision.input.part_mask.shrink`.

    Args:
        small: pixels must be square in the image as sent.
        upright: what is known of good parts.

    Returns:
        None if no part is found.
    """
    part = _find(small, shadow=upright.shadow)
    return None if part is None else part.pose(part.turn(upright.axis, lopsided=upright.lopsided).degrees)


@dataclass(frozen=True)
class Poses:
    """The poses of good parts.

    Attributes:
        upright: what the parts have in common.
        deviation: the circular standard deviation of their turns, degrees.
        shift: the standard deviation of their places, as a share of the square root of the area of the part.
        spread: how much their sizes differ from the usual one: the share that nine of ten stay below.
    """

    upright: Upright
    deviation: float
    shift: float
    spread: float

    @property
    def vary(self) -> bool:
        """Whether the parts lie so differently that it matters."""
        return self.deviation > _SAME_TURN or self.shift > _SAME_PLACE


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
    return plain if plain.spread <= sharp.spread + _CLEARLY else sharp


def _learn(images: Sequence[Channels], *, shadow: bool) -> Poses | None:
    parts = [part for part in (_find(image, shadow=shadow) for image in images) if part is not None]
    if not _almost_all(len(parts), len(images)):
        return None
    axis = _common_axis(parts)
    skewness = [abs(part.skewness(part.turn(axis, lopsided=True).degrees)) for part in parts]
    lopsided = float(np.median(skewness)) >= _SKEWED
    turns = [part.turn(axis, lopsided=lopsided) for part in parts]
    poses = [part.pose(turn.degrees) for part, turn in zip(parts, turns, strict=True)]
    sizes = np.array([(pose.length, pose.width, pose.size) for pose in poses])
    length, width, size = np.median(sizes, axis=0).tolist()
    upright = Upright(
        length=length,
        width=width,
        size=size,
        axis=axis,
        lopsided=lopsided,
        inside=_almost_all(sum(pose.complete for pose in poses), len(poses)),
        shadow=shadow,
    )
    spread = float(np.quantile(np.abs(sizes / np.median(sizes, axis=0) - 1), 0.9))
    if spread > _MAX_SPREAD or not _almost_all(sum(pose.fits(upright) for pose in poses), len(images)):
        return None
    places = np.array([part.middle for part in parts])
    shift = float(np.hypot(*places.std(axis=0))) / size
    return Poses(upright, _turn_deviation(turns, axis), shift, spread)


def _almost_all(count: int, total: int) -> bool:
    return count >= max(min(_MIN_FOUND * total, total - 1), 1)


def _turn_deviation(turns: Sequence["_Turn"], axis: Axis) -> float:
    """Return the standard deviation of turns in degrees: of parts that look alike both ways, only up to half a turn."""
    degrees = np.radians([turn.degrees for turn in turns])
    fold = 4 if axis == "lines" else 2
    up_to_symmetry = _circular_deviation(degrees * fold) / fold
    evidence = np.abs([turn.evidence for turn in turns])
    sure = (evidence.mean(axis=0) >= _SURE * evidence.std(axis=0)).all()
    return _circular_deviation(degrees) if sure or up_to_symmetry > _SAME_TURN else up_to_symmetry


def _circular_deviation(radians: NDArray[np.float64]) -> float:
    """Return the circular standard deviation in degrees, at most that of turns that are spread evenly, 104°."""
    resultant = min(max(float(abs(np.exp(1j * radians).mean())), 1e-12), 1.0)
    return min(math.degrees(math.sqrt(abs(2 * math.log(resultant)))), 360 / math.sqrt(12))


@dataclass(frozen=True)
class _Turn:
    """The turn of a part in degrees, and the signed measures that decided between turns that differ by symmetry."""

    degrees: float
    evidence: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Part:
    """A part that was found.

    Attributes:
        mask: bool, (rows, columns), true on the part.
        grey: float32, (rows, columns).
        points: float64, (N, 2): x and y of the pixels of the part, sorted by row.
    """

    mask: NDArray[np.bool_]
    grey: NDArray[np.float32]
    points: Points

    @property
    def middle(self) -> NDArray[np.float64]:
        """The centre of the area, x and y, as shares of the square root of the area of the image."""
        centre: NDArray[np.float64] = self.points.mean(axis=0) / math.sqrt(self.mask.size)
        return centre

    def turn(self, axis: Axis, *, lopsided: bool) -> _Turn:
        """Return the turn from the x axis of the image to that of the part."""
        if axis == "none":
            return _Turn(0.0)
        lines: tuple[float, ...] = ()
        if axis == "area":
            degrees = _principal_axis(self.points)[0]
        else:
            degrees = _smallest_rectangle(self.points).degrees
            if axis == "lines":
                lines = (self._lines_along(degrees),)
                degrees += 90 * (lines[0] < 0)
        end = self.skewness(degrees) if lopsided else self._brightness_of_end(degrees)
        return _Turn(_rounded((degrees + 180 * (end < 0)) % 360, _TURN_STEP), (*lines, end))

    def pose(self, degrees: float) -> Pose:
        """Return the pose of the part with this turn."""
        rows, columns = self.mask.shape
        along, across = _frame(degrees)
        x, y = self.points @ along, self.points @ across
        centre = (x.min() + x.max()) / 2 * along + (y.min() + y.max()) / 2 * across
        unit = math.sqrt(self.mask.size)
        edges = (self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1])
        return Pose(
            x=_rounded(float(centre[0]) / columns, _PLACE_STEP),
            y=_rounded(float(centre[1]) / rows, _PLACE_STEP),
            degrees=degrees,
            length=(float(np.ptp(x)) + 1) / unit,
            width=(float(np.ptp(y)) + 1) / unit,
            size=math.sqrt(len(self.points)) / unit,
            complete=not any(edge.any() for edge in edges),
        )

    def skewness(self, degrees: float) -> float:
        """Return how much more area is at the end of the axis: the heavier end is the shorter one."""
        along, _ = _frame(degrees)
        values = (self.points - self.points.mean(axis=0)) @ along
        return -float((values**3).mean()) / max(float(values.std()) ** 3, 1e-12)

    def _brightness_of_end(self, degrees: float) -> float:
        """Return how much brighter the end of the axis is."""
        along, _ = _frame(degrees)
        values = (self.points - self.points.mean(axis=0)) @ along
        grey = self.grey[self.mask].astype(np.float64)
        return float(((grey - grey.mean()) * values).mean())

    def _lines_along(self, degrees: float) -> float:
        """Return how much more the lines on the part run along the axis than across it: the logarithm of a ratio."""
        down, right = (np.asarray(slope, dtype=np.float64) for slope in np.gradient(self.grey))
        # Pixels whose neighbours are on the part, too: the outline says nothing about the lines.
        inner = self.mask.copy()
        for axis in (0, 1):
            for step in (-2, 2):
                inner &= np.roll(self.mask, step, axis)
        along, across = (
            float(((right[inner] * vector[0] + down[inner] * vector[1]) ** 2).sum()) for vector in _frame(degrees)
        )
        return math.log((across + 1) / (along + 1))


def _find(small: Channels, *, shadow: bool) -> _Part | None:
    mask = find_part(small, shadow=shadow)
    if mask is None:
        return None
    rows, columns = np.nonzero(mask)
    return _Part(mask, small.mean(axis=0), np.stack([columns + 0.5, rows + 0.5], axis=1))


def _common_axis(parts: Sequence[_Part]) -> Axis:
    """Return what tells the turns of the parts apart."""
    if float(np.median([_principal_axis(part.points)[1] for part in parts])) >= _LONG:
        return "area"
    rectangles = [_smallest_rectangle(part.points) for part in parts]
    if float(np.median([rectangle.elongation for rectangle in rectangles])) >= _OBLONG:
        return "sides"
    return "none" if float(np.median([rectangle.largest for rectangle in rectangles])) < _ROUND else "lines"


def _rounded(value: float, step: float) -> float:
    return round(value / step) * step


def _frame(degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors along and across an axis, in x and y."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([cosine, sine]), np.array([-sine, cosine])


def _principal_axis(points: Points) -> tuple[float, float]:
    """Return the turn of the long axis in degrees, and the deviation along it divided by that across it, at least 1."""
    spreads, axes = np.linalg.eigh(np.cov(points.T))
    elongation = math.sqrt(float(spreads[1]) / max(float(spreads[0]), 1e-6))
    return math.degrees(math.atan2(axes[1, 1], axes[0, 1])), elongation


@dataclass(frozen=True)
class _Rectangle:
    """The rectangle of the smallest area around a part.

    Attributes:
        degrees: the turn of its longer side.
        elongation: its longer side divided by the shorter one.
        largest: the area of the largest rectangle that touches the part on all sides, as a multiple of its own.
    """

    degrees: float
    elongation: float
    largest: float


@lru_cache(maxsize=1)
def _directions() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the angles from 0° to 90°, in steps of a quarter degree, and their unit vectors, (angles, 2)."""
    angles = np.arange(0, 90, 0.25)
    radians = np.radians(angles)
    return angles, np.stack([np.cos(radians), np.sin(radians)], axis=1)


def _smallest_rectangle(points: Points) -> _Rectangle:
    angles, along = _directions()
    outline = _outline(points)
    # A pixel is as wide as 1.
    lengths = np.ptp(outline @ along.T, axis=0) + 1
    widths = np.ptp(outline @ np.stack([-along[:, 1], along[:, 0]]), axis=0) + 1
    areas = lengths * widths
    best = int(areas.argmin())
    length, width = float(lengths[best]), float(widths[best])
    return _Rectangle(
        degrees=float(angles[best]) + 90 * (width > length),
        elongation=max(length, width) / min(length, width),
        largest=float(areas.max() / areas[best]),
    )


def _outline(points: Points) -> Points:
    """Return the first and the last point of each row, which contain the convex hull; points are sorted by row."""
    rows = points[:, 1]
    starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    ends = np.r_[starts[1:] - 1, len(points) - 1]
    return points[np.r_[starts, ends]]
