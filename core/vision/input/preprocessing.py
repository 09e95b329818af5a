"""Preprocessing: decoding and resizing an encoded image for a detector.

Training, calibration, scoring and re-scoring all call `prepare`. Its parameters are recorded in the bundle.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from core.intake.image_decoding import decode_sized

PreparedImage = NDArray[np.uint8]
"""A prepared image: uint8, shape (height, width, 3), RGB."""

_DECODE_MARGIN = 2


@dataclass(frozen=True)
class SizedImage:
    """A prepared image and its original size.

    Attributes:
        pixels: uint8, (height, width, 3), in the size of the preprocessing.
        width, height: of the original image, pixels as displayed, whatever scale it was decoded at.
    """

    pixels: PreparedImage
    width: int
    height: int


class Preprocessing(BaseModel):
    """How an image is resized for the network. `core.intake.image_decoding.decode` handles its colours.

    Attributes:
        width, height: of the prepared image, pixels; the aspect ratio is not kept.
        resize: `bilinear-antialias` is Pillow's BILINEAR, whose filter widens when an image shrinks; torchvision's
            `Resize` does the same to a Pillow image.
        scaled_decode: whether a JPEG is decoded at a reduced scale, never below twice the prepared size. That is
            faster and changes scores slightly, so training and scoring must use the same value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: Annotated[int, Field(ge=8, le=4096)]
    height: Annotated[int, Field(ge=8, le=4096)]
    resize: Literal["bilinear-antialias"] = "bilinear-antialias"
    scaled_decode: bool

    @property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of all fields and values."""
        canonical = ",".join(f"{name}={value}" for name, value in sorted(self.model_dump().items()))
        return hashlib.sha256(canonical.encode()).hexdigest()


def prepare(data: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> SizedImage:
    """Decode and resize one encoded image. Safe to call from several threads.

    Values stay 0 to 255; the detector converts them to float32 on its device.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes cannot be decoded as an image.
    """
    size = (preprocessing.width, preprocessing.height)
    at_least = (_DECODE_MARGIN * size[0], _DECODE_MARGIN * size[1]) if preprocessing.scaled_decode else None
    image, (width, height) = decode_sized(data, max_pixels=max_pixels, at_least=at_least)
    return SizedImage(np.asarray(image.resize(size, Image.Resampling.BILINEAR)), width, height)
