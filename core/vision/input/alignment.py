"""Alignment: undo the small shift and turn of an image against good parts, see `core.vision.input.template`.

What a shifted image does not show is filled in from the mean of good parts. Detectors must be trained on such images,
too (`core.vision.training.augmentation`): a repeated edge, or a fill that they have never seen, is an anomaly. On
solar cells that fill their image (elpv mono, development half), a shift of 3 % whose lost strip was filled by repeating
the edge made every good cell `ng`, and 3 % of them once the training images had such strips from the mean.
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

from core.vision.input.geometry import Affine, covered
from core.vision.input.template import REACH, Grey, Motion, Template, standardise

_SHIFT_STEPS: Final = 16
_TURN_STEPS: Final = 20
"""Shifts are rounded to 1/16 pixel and turns to 1/20 degree, so that all machines resample an image alike."""
_RANGE: Final = 4.0
"""Standard deviations of grey levels that a reference holds, above and below the mean."""
_MAX_SIDE: Final = 256
_LUMA: Final = (0.299, 0.587, 0.114)


class Alignment(BaseModel):
    """How prepared images are aligned.

    Attributes:
        references: the mean of each kind of good part: 8-bit grey PNG, base64. All have one size and cover the whole
            prepared image; their pixels are square in the image as sent.
        noise: see `core.vision.input.template.noise_power`.
        largest_shift: the largest shift that is undone, as a share of each side.
        largest_turn: the largest turn that is undone, degrees.
        smallest_match: images that match no reference so well are not aligned; see
            `core.vision.input.template.Motion`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    references: Annotated[
        tuple[Annotated[str, Field(max_length=20_000)], ...], Field(min_length=1, max_length=4, strict=False)
    ]
    noise: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=2, max_length=256, strict=False)]
    largest_shift: Annotated[float, Field(ge=0, le=REACH)]
    largest_turn: Annotated[float, Field(ge=0, le=6)]
    smallest_match: Annotated[float, Field(ge=-1, le=1)]

    @model_validator(mode="after")
    def _references_are_readable(self) -> "Alignment":
        if len({_decode(reference).shape for reference in self.references}) > 1:
            raise ValueError("the references must have one size")
        return self

    def templates(self) -> tuple[Template, ...]:
        """Return the templates of the references; computed once."""
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


def align(image: NDArray[np.uint8 | np.float32], alignment: Alignment) -> Aligned | None:
    """Find out how to align a prepared image (height, width, 3); None if that is not possible within the bounds."""
    motion, kind = find_motion(image, alignment.templates())
    within = max(abs(motion.right), abs(motion.down)) <= alignment.largest_shift
    if not within or abs(motion.degrees) > alignment.largest_turn or motion.match < alignment.smallest_match:
        return None
    height, width, _ = image.shape
    columns, rows = alignment.templates()[kind].size
    to_image = Affine.scaling(width / columns, height / rows)
    turn = Affine.turn(round(motion.degrees * _TURN_STEPS) / _TURN_STEPS).about(columns / 2, rows / 2)
    right, down = (
        round(share * side * _SHIFT_STEPS) / _SHIFT_STEPS
        for share, side in ((motion.right, width), (motion.down, height))
    )
    return Aligned(Affine.shift(right, down) @ to_image @ turn @ to_image.inverse(), kind)


def find_motion(image: NDArray[np.uint8 | np.float32], templates: tuple[Template, ...]) -> tuple[Motion, int]:
    """Return the motion of an image against the template that it matches best, and the index of that template."""
    grey = small_grey(image, templates[0].size)
    motions = [template.find(grey) for template in templates]
    kind = max(range(len(motions)), key=lambda index: motions[index].match)
    return motions[kind], kind


def small_grey(image: NDArray[np.uint8 | np.float32], size: tuple[int, int]) -> Grey:
    """Return a small grey copy (BT.601) of an image (height, width, 3), of the size (columns, rows)."""
    if image.dtype == np.uint8:
        grey = Image.fromarray(image).convert("L")
    else:
        grey = Image.fromarray(image.astype(np.float32) @ np.array(_LUMA, dtype=np.float32))
    return np.asarray(grey.resize(size, Image.Resampling.BOX), dtype=np.float32)


def fill_uncovered(
    image: NDArray[np.float32], alignment: Alignment, kind: int | None, is_covered: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Fill pixels of an aligned image from a reference, whose levels are fitted to those of the other pixels.

    Args:
        image: (height, width, 3), 0 to 255.
        alignment: has the references.
        kind: the index of the reference; None for the one that is most like the image.
        is_covered: which pixels are not filled: (height, width), with at least one.

    Returns:
        A new image, 0 to 255.
    """
    if is_covered.all():
        return image
    if kind is None:
        grey = standardise(small_grey(image, alignment.templates()[0].size))
        kind = int(np.argmax([float((template.mean * grey).mean()) for template in alignment.templates()]))
    height, width, channels = image.shape
    reference = _enlarged(alignment, kind, (width, height))
    known = reference[is_covered]
    spread = known - known.mean()
    filled = image.copy()
    for channel in range(channels):
        levels = image[:, :, channel][is_covered]
        gain = max(float(spread @ (levels - levels.mean())) / max(float(spread @ spread), 1e-6), 0.0)
        estimate = (reference[~is_covered] - known.mean()) * gain + levels.mean()
        filled[:, :, channel][~is_covered] = estimate.clip(0, 255)
    return filled


def covered_after(motion: Motion, alignment: Alignment, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of an aligned image of (width, height) remain if it had been moved: (height, width)."""
    columns, rows = alignment.templates()[0].size
    to_image = Affine.scaling(size[0] / columns, size[1] / rows)
    return covered(to_image @ motion.affine(columns, rows) @ to_image.inverse(), size, size)


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
def _templates(alignment: Alignment) -> tuple[Template, ...]:
    return tuple(Template(_decode(reference), np.array(alignment.noise)) for reference in alignment.references)


@lru_cache(maxsize=16)
def _enlarged(alignment: Alignment, kind: int, size: tuple[int, int]) -> Grey:
    """Return a reference in the size (width, height) of the prepared image: (height, width)."""
    mean = Image.fromarray(alignment.templates()[kind].mean)
    return np.asarray(mean.resize(size, Image.Resampling.BICUBIC))
