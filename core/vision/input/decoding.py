"""Decode an image for a detector, the first half of its preprocessing. Imports no torch: a child starts quickly.

JPEGs at full size are decoded without Pillow's copies. The pixels are the same, since both use libjpeg-turbo. Pillow
decodes at a reduced scale, and every other format. torchvision's decoders are no alternative: they are deprecated, and
that for PNG ends the process at some broken files (0.29).
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from core.intake.image_decoding import Decoded, decode_stored
from core.vision.input.record import Preprocessing


def decode(data: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> Decoded:
    """Decode an encoded image, at a reduced scale where the preprocessing allows it. Runs mostly without the GIL.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes cannot be decoded as an image.
    """
    return decode_stored(data, max_pixels=max_pixels, at_least=preprocessing.decoded_size, jpeg_decoder=_decode_jpeg)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """See `core.intake.image_decoding.JpegDecoder`."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:  # broken, even slightly; Pillow can read it, or finds out why not
        return None
    return pixels
