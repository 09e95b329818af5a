"""Alignment: undo the small shift and turn of an image against good parts, see `core.vision.input.template`.

What a shifted image does not show is filled in, and detectors that learn statistics are trained on such images, too
(`core.vision.training.augmentation`). Measured on solar cells that fill their image (elpv, development halves,
feature-gaussian): a shift of 3 % right and down made every good cell `ng` without alignment, as many as before on mono
and 0.7 points more on poly with it; a turn of 3° made 9 % to 72 % of them `ng`, and again as many as before with it.
"""

import base64
import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.vision.input.geometry import IDENTITY, Affine, covered
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.template import REACH, Grey, Match, Motion, Templates, standardise

_SHIFT_STEPS: Final = 16
_TURN_STEPS: Final = 20
"""Shifts are rounded to 1/16 pixel and turns to 1/20 degree, so that all machines resample an image alike."""
_RANGE: Final = 4.0
"""Standard deviations of grey levels that a reference holds, above and below the mean."""
ROUNDING: Final = _RANGE / 127.5 / math.sqrt(12)
"""Standard deviation of the rounding of a reference to 8 bits."""
_GAIN_STEP: Final = 4
"""Every fourth row and column is enough to fit the levels of a reference."""
_MAX_SIDE: Final = 256
_LUMA: Final = (0.299, 0.587, 0.114)


class Alignment(BaseModel):
    """How prepared images are aligned.

    Attributes:
        references: the mean of each kind of good part: 8-bit grey PNG, base64. All have one size and cover the whole
            prepared image; their pixels are square in the image as sent.
        noise: see `core.vision.input.template.noise_power`.
        smallest_shift, smallest_turn: an image is left as it is if its shift, as a share of each side, and its turn, in
            degrees, are at most these. Detectors tolerate them, and resampling would blur the image a little.
        largest_shift, largest_turn: the largest ones that are undone.
        smallest_match: images that match no reference so well are not aligned; see
            `core.vision.input.template.Match.correlation`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    references: Annotated[
        tuple[Annotated[str, Field(max_length=20_000)], ...], Field(min_length=1, max_length=4, strict=False)
    ]
    noise: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2, max_length=256, strict=False)]
    smallest_shift: Annotated[float, Field(ge=0)]
    smallest_turn: Annotated[float, Field(ge=0)]
    largest_shift: Annotated[float, Field(ge=0, le=REACH)]
    largest_turn: Annotated[float, Field(ge=0, le=6)]
    smallest_match: Annotated[float, Field(ge=-1, le=1)]

    @model_validator(mode="after")
    def _references_are_readable(self) -> "Alignment":
        if len({_decode(reference).shape for reference in self.references}) > 1:
            raise ValueError("the references must have one size")
        return self

    @property
    def templates(self) -> Templates:
        """The references, ready for use; computed once."""
        return _templates(self)


@dataclass(frozen=True)
class Aligned:
    """How an image is aligned.

    Attributes:
        to_given: maps pixels of the aligned image to those of the given one, which has the same size.
        kind: index of the reference that it matches best.
    """

    to_given: Affine
    kind: int


def align(image: PreparedImage, alignment: Alignment) -> Aligned | None:
    """Find out how to align a prepared image (height, width, 3); None if that is not possible within the bounds."""
    match = find_match(image, alignment.templates)
    motion = match.motion
    shift, turn = max(abs(motion.right), abs(motion.down)), abs(motion.degrees)
    within = shift <= alignment.largest_shift and turn <= alignment.largest_turn
    if not within or match.correlation < alignment.smallest_match:
        return None
    if shift <= alignment.smallest_shift and turn <= alignment.smallest_turn:
        return Aligned(IDENTITY, match.kind)
    height, width, _ = image.shape
    rounded = Motion(
        round(motion.right * width * _SHIFT_STEPS) / _SHIFT_STEPS / width,
        round(motion.down * height * _SHIFT_STEPS) / _SHIFT_STEPS / height,
        round(motion.degrees * _TURN_STEPS) / _TURN_STEPS,
    )
    return Aligned(to_prepared(rounded, alignment, (width, height)), match.kind)


def to_prepared(motion: Motion, alignment: Alignment, size: tuple[int, int]) -> Affine:
    """Return the map of a motion, from the aligned to the moved image, in prepared images of (width, height)."""
    columns, rows = alignment.templates.size
    to_image = Affine.scaling(size[0] / columns, size[1] / rows)
    return to_image @ motion.affine(columns, rows) @ to_image.inverse()


def find_match(image: PreparedImage, templates: Templates) -> Match:
    """Return the motion of a prepared image (height, width, 3) against the template that it matches best."""
    return templates.find(small_grey(image, templates.size))


def small_grey(image: PreparedImage, size: tuple[int, int]) -> Grey:
    """Return a small grey copy (BT.601) of an image (height, width, 3), of the size (columns, rows)."""
    if image.dtype == np.uint8:
        grey = Image.fromarray(image).convert("L")
    else:
        grey = Image.fromarray(image.astype(np.float32) @ np.array(_LUMA, dtype=np.float32))
    return np.asarray(grey.resize(size, Image.Resampling.BOX), dtype=np.float32)


def fill_uncovered(
    image: PreparedImage, alignment: Alignment, kind: int | None, to_source: Affine, source_size: tuple[int, int]
) -> PreparedImage:
    """Fill what an aligned image does not show, because it lies beyond the edge of the image that it comes from.

    A pixel gets the levels of the nearest pixel that is shown, changed by as much as the reference changes between the
    two. So a plain background stays plain, and an edge of the part that is hidden comes back.

    Args:
        image: (height, width, 3), 0 to 255.
        alignment: has the references.
        kind: the index of the reference; None for the one that is most like the image.
        to_source: maps pixels of the image to those of the image that it comes from.
        source_size: (width, height) of the latter.

    Returns:
        A new image of the same type, or the same one if it shows everything.
    """
    height, width, channels = image.shape
    hidden = ~covered(to_source, (width, height), source_size)
    if not hidden.any() or hidden.all():
        return image
    if kind is None:
        grey = standardise(small_grey(image, alignment.templates.size))
        kind = int((alignment.templates.means * grey).mean(axis=(1, 2)).argmax())
    reference = _enlarged(alignment, kind, (width, height))
    rows, columns = np.nonzero(hidden)
    from_rows, from_columns = _nearest_shown(rows, columns, to_source, source_size, (width, height))
    change = reference[hidden] - reference[from_rows, from_columns]
    some = ~hidden[::_GAIN_STEP, ::_GAIN_STEP]
    known = reference[::_GAIN_STEP, ::_GAIN_STEP][some]
    spread = known - known.mean() if some.any() else known
    filled = image.copy()
    for channel in range(channels):
        levels = image[:, :, channel]
        shown = levels[::_GAIN_STEP, ::_GAIN_STEP][some].astype(np.float32)
        gain = max(float(spread @ shown) / max(float(spread @ spread), 1e-6), 0.0)
        estimate = (levels[from_rows, from_columns] + gain * change).clip(0, 255)
        filled[:, :, channel][hidden] = estimate.round() if image.dtype == np.uint8 else estimate
    return filled


def _nearest_shown(
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    to_source: Affine,
    source_size: tuple[int, int],
    size: tuple[int, int],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the pixels next to these within the source, of an image of (width, height)."""
    there = to_source.apply(np.stack([columns + 0.5, rows + 0.5], axis=-1))
    inside = np.clip(there, 0.5, np.array(source_size) - 0.5)
    back = to_source.inverse().apply(inside)
    nearest = np.clip(back, 0, np.array(size) - 0.5).astype(np.intp)
    return nearest[:, 1], nearest[:, 0]


def encode_reference(mean: Grey) -> str:
    """Return the mean of good parts, (rows, columns), as in `Alignment.references`. Its gain and offset are lost."""
    levels = (standardise(mean) / _RANGE + 1) * 127.5
    out = io.BytesIO()
    Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def _decode(reference: str) -> Grey:
    """Decode a reference.

    Raises:
        ValueError: it is not of the form that `encode_reference` returns.
    """
    try:
        image = Image.open(io.BytesIO(base64.b64decode(reference, validate=True)), formats=["PNG"])
        if image.mode != "L" or max(image.size) > _MAX_SIDE or min(image.size) < 8:
            raise ValueError(f"it is a {image.mode} image of {image.width} × {image.height} pixels")
        return np.asarray(image, dtype=np.float32)
    except Exception as error:  # Pillow raises every kind
        raise ValueError(f"a reference is not a grey PNG of 8 to {_MAX_SIDE} pixels a side: {error}") from error


@lru_cache(maxsize=8)
def _templates(alignment: Alignment) -> Templates:
    return Templates(np.stack([_decode(each) for each in alignment.references]), np.array(alignment.noise))


@lru_cache(maxsize=16)
def _enlarged(alignment: Alignment, kind: int, size: tuple[int, int]) -> Grey:
    """Return a reference in the size (width, height) of the prepared image: (height, width)."""
    mean = Image.fromarray(alignment.templates.means[kind])
    return np.asarray(mean.resize(size, Image.Resampling.BICUBIC))
