"""Synthetic defects, drawn into images of good parts and fitted to the part.

They take the place of defective parts, which a training folder seldom has: detectors are compared, and what a detector
can find is measured, on the same good parts with and without a defect. A defect is defined in units of the part, so the
same one can be drawn into prepared images of any size and pose, or into images as sent. Spots, scratches and stains
change the grey levels; patches of other places, after Li et al., "CutPaste" (CVPR 2021), keep them and change the
structure; blur, noise and missing areas change the texture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from core.vision.input.prepared_image import PreparedImage
from core.vision.selection.defect_shapes import Area, draw_blob, draw_curve, draw_shard
from core.vision.selection.part_appearance import Foreground, PartAppearance

Kind = Literal["spot", "scratch", "stain", "noise", "patch", "blur", "missing"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
TONED: Final[frozenset[Kind]] = frozenset({"spot", "scratch", "stain", "noise"})
"""The kinds whose contrast is in grey levels."""

Pixels = NDArray[np.float32]
Coverage = NDArray[np.float32]

_SIZES: Final[Mapping[Kind, tuple[float, float]]] = {
    "spot": (0.02, 0.12),
    "scratch": (0.004, 0.02),
    "stain": (0.08, 0.4),
    "noise": (0.08, 0.35),
    "patch": (0.08, 0.3),
    "blur": (0.12, 0.4),
    "missing": (0.04, 0.2),
}
"""From the smallest to the largest planned size, as a share of the side of the part."""
_CONTRASTS: Final[Mapping[Kind, tuple[float, float]]] = {
    "spot": (2.0, 16.0),
    "scratch": (2.0, 16.0),
    "stain": (1.0, 10.0),
    "noise": (1.0, 5.0),
    "patch": (0.6, 1.0),
    "blur": (0.8, 1.0),
    "missing": (0.4, 1.0),
}
"""From the faintest to the strongest planned contrast: deviations of the part, or opacity for kinds not in `TONED`.

With these sizes and contrasts the best detector of solar cells (development half) has an AUROC of 0.75 to 0.9.
Gaussian and memory bank come in the same order as by real defects, on cells that lie still and on cells in any pose.
With half of both, the AUROC in any pose was 0.6 for either.
"""
_DARK, _BRIGHT = 55.0, 200.0
"""Where a place is darker or brighter than this, a defect is brighter or darker; in between it may be either."""


@dataclass(frozen=True)
class Defect:
    """A synthetic defect, in units of the part.

    Attributes:
        kind: a spot is a small round area that is darker or brighter; a stain a larger, irregular and softer one; a
            scratch a thin curve; noise a stronger texture; a patch a piece of another place; blur a local defocus;
            missing an angular area of background, or of the darkest colour where the part has no background.
        size: diameter, or the width of a scratch, as a share of the side of the part; above 0. A scratch is 0.2 to
            0.9 sides long, whatever its width.
        contrast: change of the grey levels at its centre, 0 to 255, or the standard deviation of noise; for patch, blur
            and missing the opacity, 0 to 1.
        place: two shares, 0 to below 1, of the area of the part: above its centre, and to the left within its row.
        seed: of its shape.
    """

    kind: Kind
    size: float
    contrast: float
    place: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class PlannedDefect:
    """A defect, the index of the image that it is drawn into, and the index of the image that a patch comes from."""

    image: int
    donor: int
    defect: Defect


@dataclass(frozen=True)
class DefectiveImage:
    """An image with a defect.

    Attributes:
        pixels: like the image: uint8 or float32, (height, width, 3), 0 to 255.
        mask: bool, (height, width); true where the image was changed.
    """

    pixels: PreparedImage
    mask: NDArray[np.bool_]


def plan_defects(appearance: PartAppearance, images: int, count: int, seed: int) -> list[PlannedDefect]:
    """Plan defects from hardly visible to obvious for images of a part. The same arguments give the same defects.

    All kinds and all images take turns. Sizes and contrasts are log-uniform: from 2 % to 40 % of the part, or 0.4 %
    to 2 % for the width of a scratch, and from once or twice its own deviation to several times that.

    Args:
        appearance: of the part.
        images: number of images, at least one; images and donors are indices below it.
        count: number of defects; a longer plan begins with the shorter one.
        seed: of everything random.
    """
    order = np.random.default_rng(seed).permutation(images)
    plan = []
    for number in range(count):
        random = np.random.default_rng([seed, number])
        kind = KINDS[number % len(KINDS)]
        contrast = _log_uniform(random, _CONTRASTS[kind]) * (appearance.deviation if kind in TONED else 1)
        size = _log_uniform(random, _SIZES[kind])
        image = int(order[number % images])
        donor = (image + int(random.integers(1, max(images, 2)))) % images
        plan.append(PlannedDefect(image, donor, random_defect(kind, size, min(contrast, 255.0), random)))
    return plan


def random_defect(kind: Kind, size: float, contrast: float, random: Generator) -> Defect:
    """Return a defect of this kind, size and contrast, with a random place and shape; see `Defect`."""
    place = (float(random.random()), float(random.random()))
    return Defect(kind, size, contrast, place, int(random.integers(2**32)))


def _log_uniform(random: Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(random.uniform(*np.log(bounds))))


def draw(
    image: PreparedImage,
    defect: Defect,
    appearance: PartAppearance,
    *,
    donor: PreparedImage | None = None,
    aspect: float | None = None,
    foregrounds: tuple[Foreground, Foreground] | None = None,
) -> DefectiveImage:
    """Draw a defect into a copy of an image of a good part. It never leaves the part.

    Args:
        image: uint8 or float32, (height, width, 3), 0 to 255.
        defect: in units of the part.
        appearance: of the part.
        donor: another image of the same shape, which a patch comes from. Default: the image itself.
        aspect: width / height of what the image shows, if it was prepared to another aspect. A round spot is round
            there. Default: that of the image.
        foregrounds: of the image and of the donor, if they are known. Finding them takes longer than drawing.
    """
    random = np.random.default_rng(defect.seed)
    donor = image if donor is None else donor
    foreground, donor_foreground = foregrounds or (appearance.foreground(image), None)
    height, width = image.shape[:2]
    stretch = (width / height / aspect) ** 0.5 if aspect is not None else 1.0
    side = appearance.side(width, height)
    row, column = _locate(foreground.mask, defect.place)
    area = Area.around(row, column, (height, width), side * stretch, side / stretch, _REACH[defect.kind](defect.size))
    coverage = _SHAPES[defect.kind](area, defect.size, random) * foreground.mask[area.window]
    levels = image[area.window].astype(np.float32)
    if defect.kind in TONED:
        changed = levels + (coverage * _tone(levels, coverage, area, defect, random))[:, :, None]
    else:
        if defect.kind == "patch":
            replacement = _patch(image, donor, donor_foreground or appearance.foreground(donor), area, random)
        else:
            replacement = _replacement(image, foreground, area, defect)
        changed = levels + (coverage * defect.contrast)[:, :, None] * (replacement - levels)
    pixels = image.copy()
    pixels[area.window] = _as_type(changed, levels, coverage, image.dtype)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[area.window] = (pixels[area.window] != image[area.window]).any(axis=2)
    return DefectiveImage(pixels, mask)


def _as_type(changed: Pixels, levels: Pixels, coverage: Coverage, dtype: np.dtype[Any]) -> PreparedImage:
    """Return the levels as the type of the image. What the defect does not cover stays exactly as it was."""
    clipped = np.where(coverage[:, :, None] > 0, changed.clip(0, 255), levels)
    return (np.rint(clipped) if dtype == np.uint8 else clipped).astype(dtype)


def _locate(mask: NDArray[np.bool_], place: tuple[float, float]) -> tuple[int, int]:
    """Return the row and column of a place on the part: shares of its area, so it does not depend on the resolution."""
    above = mask.sum(axis=1).cumsum()
    row = int(np.searchsorted(above, place[0] * above[-1], side="right"))
    columns = np.flatnonzero(mask[row])
    return row, int(columns[int(place[1] * len(columns))])


def _tone(levels: Pixels, coverage: Coverage, area: Area, defect: Defect, random: Generator) -> Pixels | float:
    """Return what is added to the grey levels where the defect covers them fully."""
    if defect.kind == "noise":
        return defect.contrast * _texture(levels.mean(axis=2), defect.size * area.scale, random)
    weight = float(coverage.sum())
    level = float((levels.mean(axis=2) * coverage).sum()) / weight if weight > 0 else 128.0
    darker = bool(random.random() < 0.6)
    if not _DARK <= level <= _BRIGHT:
        darker = level > _BRIGHT
    return -defect.contrast if darker else defect.contrast


def _texture(grey: Pixels, size: float, random: Generator) -> Pixels:
    """Return noise with the amplitude spectrum of the part at this place, mean 0 and standard deviation 1.

    The phases are random: Galerne, Gousseau & Morel, "Random phase textures" (IEEE TIP 20 (2011), 257-267).
    """
    fine = grey - ndimage.gaussian_filter(grey, max(size / 6, 1.0))
    usual = 3 * 1.4826 * float(np.median(np.abs(fine)))  # an edge of the part is not its texture
    taper = np.outer(*(np.hanning(length + 2)[1:-1] for length in grey.shape))
    noise = random.standard_normal(grey.shape)
    phases = np.exp(1j * np.angle(np.fft.rfft2(noise)))
    texture = np.fft.irfft2(np.abs(np.fft.rfft2(fine.clip(-usual, usual) * taper)) * phases, s=grey.shape)
    texture -= texture.mean()
    deviation = float(texture.std())
    if deviation < 1e-3:  # the part has no texture of its own
        texture, deviation = noise, 1.0
    return (texture / deviation).astype(np.float32)


def _patch(image: PreparedImage, donor: PreparedImage, on: Foreground, area: Area, random: Generator) -> Pixels:
    """Return what the area of a patch is replaced by: a piece of the donor, whose foreground is `on`."""
    row, column = _locate(on.mask, (random.random(), random.random()))
    patch = donor[area.moved_to(row, column, donor.shape)].astype(np.float32)
    matched = random.random()  # good parts differ in brightness, and a patch that only does so is too easy
    shift: Pixels = image[area.window].mean(axis=(0, 1)) - patch.mean(axis=(0, 1))
    return patch + np.float32(matched) * shift.astype(np.float32)


def _replacement(image: PreparedImage, foreground: Foreground, area: Area, defect: Defect) -> Pixels:
    """Return what a blur or a missing area is replaced by."""
    if defect.kind == "missing":
        colour = foreground.background
        return np.broadcast_to(_darkest(image) if colour is None else colour, image[area.window].shape)
    levels = image[area.window].astype(np.float32)
    sigma = defect.size * area.scale / 10
    return np.stack([ndimage.gaussian_filter(levels[:, :, channel], sigma) for channel in range(3)], axis=2)


def _darkest(image: PreparedImage) -> Pixels:
    darkest: Pixels = np.percentile(image, 1, axis=(0, 1)).astype(np.float32)
    return darkest


_SHAPES: Final[Mapping[Kind, Callable[[Area, float, Generator], Coverage]]] = {
    "spot": lambda area, size, random: draw_blob(area, size, random, irregularity=0.08, softness=(0.2, 0.8)),
    "scratch": draw_curve,
    "stain": lambda area, size, random: draw_blob(area, size, random, irregularity=0.2, softness=(0.3, 1.0)),
    "noise": lambda area, size, random: draw_blob(area, size, random, irregularity=0.1, softness=(0.3, 0.6)),
    "patch": lambda area, size, random: draw_blob(area, size, random, irregularity=0.1, softness=(0.1, 0.3)),
    "blur": lambda area, size, random: draw_blob(area, size, random, irregularity=0.1, softness=(0.3, 0.6)),
    "missing": draw_shard,
}
_REACH: Final[Mapping[Kind, Callable[[float], float]]] = dict.fromkeys(KINDS, lambda size: 1.5 * size) | {
    "scratch": lambda size: 0.47 + size
}
"""How far a defect may reach from its centre, in sides of the part."""
