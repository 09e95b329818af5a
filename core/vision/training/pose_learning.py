"""Learn from images of good parts whether they can be brought upright, and how."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.intake.image_decoding import Undecodable
from core.models.bit_depths import BitDepth
from core.vision.input.bit_depth import decode_visible
from core.vision.input.foreground import CONTRASTS, Foreground, find_foreground
from core.vision.input.pose import (
    CIRCLES,
    DIRECTIONS,
    Circles,
    Spectra,
    Upright,
    best_turns,
    centre_of_mass,
    encode_circles,
    sample_circles,
    turn_back,
)
from core.vision.training.dataset import in_parallel

_MAX_PARTS: Final = 300
_MIN_PARTS: Final = 8
_FOUND_SHARE: Final = 0.98
_SAME_SIZE: Final = (0.8, 1.25)
"""Areas of good parts as a share of their median; others are not the part, but a piece of it or more than it."""
_ACCEPTED_SIZE: Final = (0.75, 1.33)
"""Areas of all parts as a share of the smallest and the largest good one: a broken part is still cut out for scoring."""
_MARGIN: Final = 0.06
"""Margin around the largest part, as a share of its longer side."""
_SEEDS: Final = 8
_SEED_PARTS: Final = 60
_ROUNDS: Final = 4
_RECTANGLE_STEP: Final = 0.25
"""Step between the rectangles that are tried, degrees."""


@dataclass(frozen=True)
class PoseLearning:
    """What was learned about the pose of good parts.

    Attributes:
        upright: how to bring parts upright; None if that does not work.
        note: one line for people: on how many images it works, or why it does not.
    """

    upright: Upright | None
    note: str


def learn_pose(paths: Sequence[Path], *, max_pixels: int, bit_depth: BitDepth | None = None) -> PoseLearning:
    """Learn how to bring parts upright from images of good parts, at most 300 of them.

    It works if there is a single part on an even background in at least 98 % of the images, within the image, and
    always of about the same size.

    Args:
        paths: of the images; those that cannot be decoded are left out.
        max_pixels: the largest accepted width times height.
        bit_depth: see `core.vision.input.preprocessing.Preprocessing`.
    """
    chosen = [paths[index * len(paths) // _MAX_PARTS] for index in range(_MAX_PARTS)]
    chosen = chosen if len(paths) > _MAX_PARTS else list(paths)

    def find(path: Path) -> list[Foreground | None] | None:
        try:
            image = decode_visible(path.read_bytes(), bit_depth, max_pixels=max_pixels)
        except Undecodable:
            return None
        return [find_foreground(image, contrast) for contrast in CONTRASTS]

    found = [each for each in in_parallel(find, chosen) if each is not None]
    of_contrasts = [_alike([each[index] for each in found]) for index in range(len(CONTRASTS))]
    best = max(range(len(CONTRASTS)), key=lambda index: _usefulness(of_contrasts[index], len(found)))
    count = len(of_contrasts[best])
    note = f"a single part of the same size on an even background was found in {count} of {len(found)} images"
    if count < max(_MIN_PARTS, _FOUND_SHARE * len(found)):
        return PoseLearning(None, f"{note}: parts cannot be brought upright")
    return PoseLearning(_learn_upright(of_contrasts[best], CONTRASTS[best]), note)


def _alike(found: Sequence[Foreground | None]) -> list[Foreground]:
    """Return the certain foregrounds of about the same size."""
    certain = [part for part in found if part is not None and part.certain]
    if not certain:
        return []
    median = float(np.median([_area(part) for part in certain]))
    return [part for part in certain if _SAME_SIZE[0] <= _area(part) / median <= _SAME_SIZE[1]]


def _usefulness(parts: Sequence[Foreground], images: int) -> tuple[bool, float]:
    """Return what makes a contrast better: it finds enough parts, and then, their sizes differ little.

    If none finds enough parts, the one that finds most is the best.
    """
    if len(parts) < _FOUND_SHARE * images:
        return False, len(parts)
    areas = np.array([_area(part) for part in parts])
    return True, -float(areas.std() / areas.mean()) if len(areas) else 0.0


def _learn_upright(single: Sequence[Foreground], contrast: float) -> Upright:
    """Learn how to bring parts upright from their foregrounds in whole images."""
    centres = [centre_of_mass(part) for part in single]
    radius = max(_reach(part, centre) for part, centre in zip(single, centres, strict=True))
    circles = np.stack([sample_circles(part, centre, radius) for part, centre in zip(single, centres, strict=True)])
    spectra = np.fft.rfft(circles)
    reference = _turn_upright(_find_reference(spectra), radius)
    turns = best_turns(spectra, reference)
    sides = np.array([_extent(*each) for each in zip(single, centres, turns.tolist(), strict=True)]).max(axis=0)
    left, top, right, bottom = (sides + _MARGIN * max(sides[0] + sides[2], sides[1] + sides[3])).tolist()
    outline, levels = encode_circles(_to_circles(turn_back(spectra, turns).mean(axis=0)))
    smallest, largest = min(map(_area, single)), max(map(_area, single))
    return Upright(
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        area=(_ACCEPTED_SIZE[0] * smallest, _ACCEPTED_SIZE[1] * largest),
        contrast=contrast,
        radius=radius,
        outline=outline,
        levels=levels,
    )


def _area(part: Foreground) -> float:
    return float(part.mask.sum()) * part.step**2


def _points(part: Foreground, centre: tuple[float, float]) -> NDArray[np.float64]:
    """Return the middle of each pixel of the part relative to its centre: (N, 2), pixels of the image."""
    down, right = np.nonzero(part.mask)
    return (np.stack([right, down], axis=-1) + 0.5) * part.step - centre


def _reach(part: Foreground, centre: tuple[float, float]) -> float:
    return float(np.linalg.norm(_points(part, centre), axis=1).max()) + part.step


def _extent(part: Foreground, centre: tuple[float, float], degrees: float) -> list[float]:
    """Return how far a part extends to the left, top, right and bottom once a turn is undone."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (_points(part, centre) @ np.array([[cosine, -sine], [sine, cosine]])).T
    return [each + part.step / 2 for each in (-x.min(), -y.min(), x.max(), y.max())]


def _find_reference(spectra: Spectra) -> Spectra:
    """Return the mean of all parts after each is turned to match it.

    Which direction that ends in depends on the part to start with, so several are tried on some of the parts.
    """
    some = spectra[:: max(len(spectra) // _SEED_PARTS, 1)][:_SEED_PARTS]
    references = [_match_to(some, seed) for seed in some[:: max(len(some) // _SEEDS, 1)][:_SEEDS]]
    likeness = [np.linalg.norm(reference) for reference in references]
    return _match_to(spectra, references[int(np.argmax(likeness))])


def _match_to(spectra: Spectra, reference: Spectra) -> Spectra:
    for _ in range(_ROUNDS):
        reference = turn_back(spectra, best_turns(spectra, reference)).mean(axis=0)
    return reference


def _to_circles(spectra: Spectra) -> Circles:
    circles: Circles = np.fft.irfft(spectra, DIRECTIONS).astype(np.float32)
    return circles


def _turn_upright(reference: Spectra, radius: float) -> Spectra:
    """Turn a reference so that the smallest rectangle around it lies along x, with the heavier half to the left."""
    outline = _to_circles(reference)[0]
    # On each direction, the outline ends where it crosses one half, between two circles.
    reached = (outline >= 0.5) * np.arange(1, CIRCLES + 1)[:, None]
    last = reached.max(axis=0)
    inside = np.where(last > 0, outline[np.maximum(last - 1, 0), np.arange(DIRECTIONS)], 1)
    beyond = np.where(last < CIRCLES, outline[np.minimum(last, CIRCLES - 1), np.arange(DIRECTIONS)], 0)
    radii = (last - 0.5 + np.clip((inside - 0.5) / np.maximum(inside - beyond, 1e-6), 0, 1)) * radius / CIRCLES
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    turns = np.arange(0, 360, _RECTANGLE_STEP)
    relative = angles[:, None] - np.radians(turns)
    x, y = radii[:, None] * np.cos(relative), radii[:, None] * np.sin(relative)
    width, height = np.ptp(x, axis=0), np.ptp(y, axis=0)
    along = width >= 0.999 * height
    # The centre of mass, at 0, is to the left of the middle.
    heavier_left = x.max(axis=0) + x.min(axis=0) >= 0
    areas = np.where(along & heavier_left, width * height, np.inf)
    return turn_back(reference[None], turns[[int(areas.argmin())]])[0]
