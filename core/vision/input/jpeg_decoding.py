"""Decode JPEGs at full size without Pillow's copies.

The pixels are the same, since both use libjpeg-turbo. Pillow decodes at a reduced scale, and every other format.
torchvision's decoders are no alternative: they are deprecated, and that for PNG ends the process at some broken files
(0.29).
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray


def decode_full_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG; see `core.intake.image_decoding.JpegDecoder`. Runs without the GIL."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # broken, even slightly; Pillow can read it, or finds out why not
        return None
    return pixels
