"""Preprocessing: decoding and resizing an encoded image for a detector.

Training, calibration, scoring and re-scoring all call `prepare`. Its parameters are recorded in the bundle.
"""

import numpy as np
from PIL import Image

from core.intake.image_decoding import decode_stored
from core.vision.input.bit_depth import DEPTH, scale
from core.vision.input.geometry import Affine
from core.vision.input.prepared_image import PreparedImage, SizedImage
from core.vision.input.record import Preprocessing
from core.vision.input.upright import POSE, cut_out


def prepare(data: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> SizedImage:
    """Decode and resize one encoded image. Safe to call from several threads.

    Values stay 0 to 255; the detector converts them to float32 on its device. See `core.vision.input.bit_depth` for
    images of more than 8 bits.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes cannot be decoded as an image.
    """
    size = (preprocessing.width, preprocessing.height)
    decoded = decode_stored(data, max_pixels=max_pixels, at_least=preprocessing.decoded_size)
    scaled = scale(decoded.content, preprocessing.bit_depth)
    reasons = () if scaled.fits else (DEPTH,)
    if preprocessing.upright is None:
        image = scaled.image.resize(size, Image.Resampling.BILINEAR)
        return SizedImage(_pixels(image, preprocessing), decoded.width, decoded.height, reasons)
    part = cut_out(scaled.image, preprocessing.upright, size)
    to_original = Affine.scaling(decoded.width / scaled.image.width, decoded.height / scaled.image.height)
    return SizedImage(
        _pixels(part.image, preprocessing),
        decoded.width,
        decoded.height,
        reasons if part.found else (*reasons, POSE),
        to_original @ part.to_image,
    )


def _pixels(image: Image.Image, preprocessing: Preprocessing) -> PreparedImage:
    """Return the pixels of an image of mode RGB, or F for grey."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    return values.astype(preprocessing.dtype, copy=False)
