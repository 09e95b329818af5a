"""Thumbnails: small JPEGs of images for people, each with a small grey copy by which images are compared."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from core.models.bit_depths import BitDepth
from core.vision.input.bit_depth import decode_visible

SIDE: Final = 256
"""The longest side of a thumbnail, in pixels."""
GREY_SIDE: Final = 32
GREY_BYTES: Final = GREY_SIDE * GREY_SIDE
_QUALITY: Final = 85


@dataclass(frozen=True)
class Thumbnail:
    """A small copy of an image.

    Attributes:
        jpeg: RGB, upright, no side above `SIDE` pixels. A smaller image is not enlarged.
        grey: the whole image at 32 × 32 pixels, whatever its shape: one byte a pixel, row by row.
    """

    jpeg: bytes
    grey: bytes


def make_thumbnail(data: bytes, bit_depth: BitDepth | None, *, max_pixels: int) -> Thumbnail:
    """Decode an image and reduce it.

    Args:
        data: an encoded image.
        bit_depth: by which grey of more than 8 bits is scaled, see `core.vision.input.bit_depth.decode_visible`.
        max_pixels: the largest accepted width times height.

    Raises:
        core.intake.image_decoding.Undecodable: for any fault in the data.
    """
    image = decode_visible(data, bit_depth, max_pixels=max_pixels, at_least=(SIDE, SIDE))
    image.thumbnail((SIDE, SIDE))
    grey = image.convert("L").resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return Thumbnail(out.getvalue(), grey.tobytes())


def similarities(grey: bytes, others: Sequence[bytes]) -> list[float]:
    """Return how alike an image looks to each of the others, from 0 to 1, by their grey copies.

    It is the correlation of the grey values (Pearson), or 0 if that is negative. Brightness and contrast make no
    difference. An image of one grey value is like no other.
    """
    values = np.frombuffer(b"".join([grey, *others]), np.uint8).reshape(-1, GREY_BYTES).astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    values /= np.where(lengths > 0, lengths, 1)
    alike: list[float] = (values[1:] @ values[0]).clip(0, 1).tolist()
    return alike
