"""The one way in which encoded bytes become the pixels that a network sees.

Training, calibration, serving and re-scoring all call `prepare`; its parameters are recorded in the bundle.
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
    """An image as the network sees it, and what it was before.

    Attributes:
        pixels: uint8, (height, width, 3), of the preprocessing's size.
        width, height: of the image as sent, pixels as displayed, whatever scale it was decoded at.
    """

    pixels: PreparedImage
    width: int
    height: int


class Preprocessing(BaseModel):
    """How an image is brought to the network's size. Its colours follow `core.intake.image_decoding.decode`.

    Attributes:
        width, height: pixels of the prepared image; the aspect ratio is not kept.
        resize: `bilinear-antialias` is Pillow's BILINEAR, whose triangle widens with the reduction; torchvision's
            `Resize` does the same to a Pillow image.
        scaled_decode: whether a JPEG is decoded at a reduced scale, never below twice the prepared size. It is
            faster and changes scores slightly, so it must be the same in training and serving.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: Annotated[int, Field(ge=8, le=4096)]
    height: Annotated[int, Field(ge=8, le=4096)]
    resize: Literal["bilinear-antialias"] = "bilinear-antialias"
    scaled_decode: bool

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all fields and values."""
        canonical = ",".join(f"{name}={value}" for name, value in sorted(self.model_dump().items()))
        return hashlib.sha256(canonical.encode()).hexdigest()


def prepare(data: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> SizedImage:
    """Decode and resize one encoded image. Safe to call from several threads.

    Values stay 0 to 255; the division by 255 to float32 happens once, on the device that scores.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes are not an image that can be decoded.
    """
    size = (preprocessing.width, preprocessing.height)
    at_least = (_DECODE_MARGIN * size[0], _DECODE_MARGIN * size[1]) if preprocessing.scaled_decode else None
    image, (width, height) = decode_sized(data, max_pixels=max_pixels, at_least=at_least)
    return SizedImage(np.asarray(image.resize(size, Image.Resampling.BILINEAR)), width, height)
