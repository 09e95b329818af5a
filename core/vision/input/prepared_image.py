"""A prepared image: decoded and resized for a detector."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.vision.input.geometry import Affine

PreparedImage = NDArray[np.uint8 | np.float32]
"""A prepared image: RGB, shape (height, width, 3), 0 to 255. It is uint8, or float32 with fractions if the detector was
trained on images of more than 8 bits."""


@dataclass(frozen=True)
class SizedImage:
    """A prepared image and its original size.

    Attributes:
        pixels: see `PreparedImage`, in the size of the preprocessing.
        width, height: of the original image, pixels as displayed, whatever scale it was decoded at.
        reasons: codes of the input checks that preparing the image failed.
        placed: maps the pixels of the prepared image to those of the original; None if the whole image was resized.
    """

    pixels: PreparedImage
    width: int
    height: int
    reasons: tuple[str, ...] = ()
    placed: Affine | None = None
