"""Pose: bring a part upright that lies anywhere, and in any direction, on an even background.

The outline and the grey levels of a part are sampled on circles around its centre of mass. A turn of the part shifts
these samples along the circles, so the turn that matches the reference best is the peak of their circular correlation.
This needs no special cases: a long part is turned by its outline, a square one to the best of its four sides, a round
one by what is on it; a part that is the same in several directions may end in any of them.

The reference is the mean of the good parts for training. Upright means that the long side of the smallest rectangle
around its outline lies along x, with the heavier half to the left. All images are cut out at the same scale, so a part
that is too large or too small stays so.
"""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.vision.input.foreground import Foreground, find_foreground
from core.vision.input.geometry import Affine

POSE: Final = "input_pose"
"""The code of the input check that an image fails if the pose of its part cannot be found."""

CIRCLES: Final = 24
DIRECTIONS: Final = 180
_FINE_DIRECTIONS: Final = 1440
"""Directions between which the peak of the correlation is interpolated."""
_LEVEL_WEIGHT: Final = 0.2
"""Weight of the grey levels, of standard deviation 1 within the part, against that of the outline, 0 or 1. The outline
decides where it differs, because light and reflections change with the direction."""
_LEVEL_RANGE: Final = 3.0
"""Standard deviations of grey levels that a reference holds."""

Circles = NDArray[np.float32]
"""float32, (2, CIRCLES, DIRECTIONS): the outline, 0 to 1, and the grey levels around it, from the inside outwards; the
directions run clockwise from the x axis."""
Spectra = NDArray[np.complex128]
"""Spectra of `Circles` along the directions: (2, CIRCLES, DIRECTIONS // 2 + 1)."""

Pixels = Annotated[float, Field(gt=0, lt=1e5)]


class Upright(BaseModel):
    """How parts are brought upright. All lengths are in pixels of the image as sent.

    Attributes:
        left, top, right, bottom: how far the cut extends from the centre of mass of the upright part, with a margin.
        area: (smallest, largest) accepted area of the part, pixels².
        contrast: see `core.vision.input.foreground.find_foreground`.
        radius: of the outermost circle.
        outline, levels: the reference, see `Circles`: 8-bit grey PNG of CIRCLES rows, base64. Outlines run from 0 to 1,
            levels from -3 to 3.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    left: Pixels
    top: Pixels
    right: Pixels
    bottom: Pixels
    area: Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], Field(strict=False)]
    contrast: Annotated[float, Field(gt=0, lt=1)]
    radius: Pixels
    outline: Annotated[str, Field(max_length=20_000)]
    levels: Annotated[str, Field(max_length=20_000)]

    @model_validator(mode="after")
    def _reference_is_readable(self) -> "Upright":
        _reference(self.outline, self.levels)
        return self

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) of the cut in pixels of the image as sent."""
        return self.left + self.right, self.top + self.bottom


@dataclass(frozen=True)
class Pose:
    """Where a part lies in an image.

    Attributes:
        upright_to_image: from pixels of the upright part, with its centre of mass at (0, 0), to pixels of the image.
        certain: whether the part and the background are as expected; otherwise the pose is a guess.
    """

    upright_to_image: Affine
    certain: bool


def find_pose(image: Image.Image, upright: Upright, scale: float) -> Pose:
    """Find the pose of the part in an image. Without a foreground, it is that of a part in the middle of the image.

    Args:
        image: of mode RGB or F.
        upright: what is known about the parts.
        scale: pixels of the image as sent for each pixel of this image, which may be a reduced copy.
    """
    found = find_foreground(image, upright.contrast)
    if found is None:
        return Pose(Affine.shift(image.width / 2, image.height / 2) @ Affine.scaling(1 / scale, 1 / scale), False)
    area = found.mask.sum() * (found.step * scale) ** 2
    centre = centre_of_mass(found)
    circles = sample_circles(found, centre, upright.radius / scale)
    (degrees,) = best_turns(np.fft.rfft(circles)[None], _reference(upright.outline, upright.levels)).tolist()
    to_image = Affine.shift(*centre) @ Affine.turn(degrees) @ Affine.scaling(1 / scale, 1 / scale)
    return Pose(to_image, found.certain and upright.area[0] <= area <= upright.area[1])


def centre_of_mass(found: Foreground) -> tuple[float, float]:
    """Return the centre of the part, its holes included, in pixels of the image."""
    down, right = np.nonzero(found.mask)
    return (float(right.mean()) + 0.5) * found.step, (float(down.mean()) + 0.5) * found.step


def sample_circles(found: Foreground, centre: tuple[float, float], radius: float) -> Circles:
    """Sample the part on circles.

    Args:
        found: the part.
        centre: of the circles, pixels of the image.
        radius: of the outermost circle, pixels of the image.
    """
    layers = np.stack([found.mask.astype(np.float32), _standard_levels(found)])
    radii = (np.arange(CIRCLES) + 0.5) * radius / CIRCLES / found.step
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    x = centre[0] / found.step + radii[:, None] * np.cos(angles) - 0.5
    y = centre[1] / found.step + radii[:, None] * np.sin(angles) - 0.5
    rows, columns = found.mask.shape
    # A ring of zeros around the image, where all that lies outside ends.
    padded = np.pad(layers, ((0, 0), (1, 1), (1, 1)))
    x, y = np.clip(x + 1, 0, columns + 0.999), np.clip(y + 1, 0, rows + 0.999)
    column, row = x.astype(np.intp), y.astype(np.intp)
    across, along = (x - column).astype(np.float32), (y - row).astype(np.float32)
    upper = padded[:, row, column] * (1 - across) + padded[:, row, column + 1] * across
    lower = padded[:, row + 1, column] * (1 - across) + padded[:, row + 1, column + 1] * across
    circles: Circles = upper * (1 - along) + lower * along
    return circles


def _standard_levels(found: Foreground) -> NDArray[np.float32]:
    """Return the grey levels of the part, less their plane, which may be the light, with standard deviation 1."""
    down, right = np.nonzero(found.mask)
    terms = np.stack([np.ones(len(down)), right - right.mean(), down - down.mean()], axis=-1)
    levels = found.grey[found.mask].astype(np.float64)
    residuals = levels - terms @ np.linalg.lstsq(terms, levels, rcond=None)[0]
    standard = np.zeros(found.mask.shape, dtype=np.float32)
    standard[found.mask] = np.clip(residuals / max(float(residuals.std()), 1.0), -_LEVEL_RANGE, _LEVEL_RANGE)
    return standard


def best_turns(spectra: Spectra, reference: Spectra) -> NDArray[np.float64]:
    """Return the turns of N parts against a reference in degrees, clockwise: (N,), 0 to 360.

    Args:
        spectra: of the parts: (N, 2, CIRCLES, frequencies).
        reference: (2, CIRCLES, frequencies).
    """
    areas = (np.arange(CIRCLES) + 0.5)[:, None]
    weighted = reference.conj() * np.stack([areas, _LEVEL_WEIGHT * areas])
    products = np.einsum("nlcf,lcf->nf", spectra, weighted)
    correlation = np.fft.irfft(products, _FINE_DIRECTIONS)
    best: NDArray[np.float64] = correlation.argmax(axis=1) * (360 / _FINE_DIRECTIONS)
    return best


def turn_back(spectra: Spectra, degrees: NDArray[np.float64]) -> Spectra:
    """Undo a turn of each of N parts: (N, 2, CIRCLES, frequencies)."""
    frequencies = np.arange(spectra.shape[-1])
    turned: Spectra = spectra * np.exp(1j * np.radians(degrees)[:, None] * frequencies)[:, None, None]
    return turned


def encode_circles(circles: Circles) -> tuple[str, str]:
    """Return the outline and the levels as in `Upright`."""
    outline, levels = circles[0], (circles[1] / _LEVEL_RANGE + 1) / 2
    return _encode(outline), _encode(levels)


def _encode(values: NDArray[np.float32]) -> str:
    out = io.BytesIO()
    Image.fromarray((values * 255).round().clip(0, 255).astype(np.uint8)).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


@lru_cache(maxsize=16)
def _reference(outline: str, levels: str) -> Spectra:
    """Decode a reference.

    Raises:
        ValueError: it is not of the form that `encode_circles` returns.
    """
    layers = [_decode(outline), _decode(levels)]
    circles = np.stack([layers[0], (2 * layers[1] - 1) * _LEVEL_RANGE])
    spectra: Spectra = np.fft.rfft(circles)
    return spectra


def _decode(encoded: str) -> NDArray[np.float32]:
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=["PNG"])
        if image.mode != "L" or image.size != (DIRECTIONS, CIRCLES):
            raise ValueError("it has another size")
        return np.asarray(image, dtype=np.float32) / 255
    except Exception as error:  # Pillow raises every kind
        raise ValueError(f"the reference is not a grey PNG of {DIRECTIONS} × {CIRCLES} pixels") from error
