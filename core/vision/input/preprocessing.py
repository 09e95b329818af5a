"""Preprocessing: decoding and resizing an encoded image for a detector.

Training, calibration, scoring and re-scoring all call `prepare`. Its parameters are recorded in the bundle.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from core.intake.image_decoding import decode_stored
from core.vision.input.alignment import Alignment, align, fill_uncovered
from core.vision.input.bit_depth import DEPTH, scale
from core.vision.input.geometry import IDENTITY, Affine
from core.vision.input.prepared_image import PreparedImage, SizedImage
from core.vision.input.record import Preprocessing
from core.vision.input.upright import POSE, cut_out, resample_reduced


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
    if preprocessing.upright is None and preprocessing.alignment is None:
        image = scaled.image.resize(size, Image.Resampling.BILINEAR)
        return SizedImage(_pixels(image, preprocessing), decoded.width, decoded.height, reasons)
    view = _resize(scaled.image, size) if preprocessing.upright is None else _cut_out(scaled.image, preprocessing)
    pixels = _pixels(view.image, preprocessing)
    if preprocessing.alignment is not None:
        view, pixels = _align(view, pixels, preprocessing, preprocessing.alignment)
    to_original = Affine.scaling(decoded.width / scaled.image.width, decoded.height / scaled.image.height)
    return SizedImage(
        pixels,
        decoded.width,
        decoded.height,
        reasons if view.found else (*reasons, POSE),
        to_original @ view.source_to_decoded @ view.to_source,
    )


@dataclass(frozen=True)
class _View:
    """What is shown of a decoded image.

    Attributes:
        image: in the prepared size.
        source: what it was resampled from.
        to_source: maps its pixels to those of the source.
        source_to_decoded: maps pixels of the source to those of the decoded image.
        found: whether the pose of the part is as expected.
    """

    image: Image.Image
    source: Image.Image
    to_source: Affine
    source_to_decoded: Affine
    found: bool


def _resize(image: Image.Image, size: tuple[int, int]) -> _View:
    resized = image.resize(size, Image.Resampling.BILINEAR)
    return _View(resized, resized, IDENTITY, Affine.scaling(image.width / size[0], image.height / size[1]), True)


def _cut_out(image: Image.Image, preprocessing: Preprocessing) -> _View:
    assert preprocessing.upright is not None  # noqa: S101 - the caller has checked it
    part = cut_out(image, preprocessing.upright, (preprocessing.width, preprocessing.height))
    return _View(part.image, image, part.to_image, IDENTITY, part.found)


def _align(
    view: _View, pixels: PreparedImage, preprocessing: Preprocessing, alignment: Alignment
) -> tuple[_View, PreparedImage]:
    """Return an aligned view and its pixels; the same ones if it cannot be aligned."""
    aligned = align(pixels, alignment)
    if aligned is None:
        return replace(view, found=False), pixels
    size = view.image.size
    to_source = view.to_source @ aligned.to_given
    image = view.image if aligned.to_given == IDENTITY else resample_reduced(view.source, to_source, size)
    shown = _pixels(image, preprocessing)
    filled = fill_uncovered(shown, alignment, aligned.kind, to_source, view.source.size)
    return replace(view, image=image, to_source=to_source), filled


def _pixels(image: Image.Image, preprocessing: Preprocessing) -> PreparedImage:
    """Return the pixels of an image of mode RGB, or F for grey."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    return values.astype(preprocessing.dtype, copy=False)
