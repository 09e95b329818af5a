"""Preprocessing: decoding and resizing an encoded image for a detector.

Training, calibration, scoring and re-scoring all call `prepare`. Its parameters are recorded in the bundle.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.intake.image_decoding import Decoded
from core.vision.input.alignment import Alignment, align, fill_uncovered
from core.vision.input.bit_depth import DEPTH, scale, to_image
from core.vision.input.decoding import decode
from core.vision.input.geometry import IDENTITY, Affine
from core.vision.input.prepared_image import PreparedImage, SizedImage
from core.vision.input.record import PILLOW, Preprocessing, Upright
from core.vision.input.resizing import resize
from core.vision.input.upright import POSE, cut_out, resample_reduced


def prepare(data: bytes, preprocessing: Preprocessing, *, max_pixels: int) -> SizedImage:
    """Decode and resize one encoded image. Safe to call from several threads.

    Values stay 0 to 255; the detector converts them to float32 on its device. See `core.vision.input.bit_depth` for
    images of more than 8 bits.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes cannot be decoded as an image.
    """
    return prepare_decoded(decode(data, preprocessing, max_pixels=max_pixels), preprocessing)


def prepare_decoded(decoded: Decoded, preprocessing: Preprocessing) -> SizedImage:
    """The second half of `prepare`: resize an image that `core.vision.input.decoding.decode` has decoded."""
    size = (preprocessing.width, preprocessing.height)
    scaled = scale(decoded.content, preprocessing.bit_depth)
    reasons = () if scaled.fits else (DEPTH,)
    if preprocessing.upright is None and preprocessing.alignment is None:
        pixels = _pixels(_resized(scaled.image, size, preprocessing), preprocessing)
        return SizedImage(pixels, decoded.width, decoded.height, reasons)
    if preprocessing.upright is None:
        view = _resized_view(scaled.image, size, preprocessing)
    else:
        view = _cut_out(to_image(scaled.image), preprocessing, preprocessing.upright)
    pixels = _pixels(view.image, preprocessing)
    if preprocessing.alignment is not None:
        view, pixels = _align(view, pixels, preprocessing, preprocessing.alignment)
    scaled_width, scaled_height = _size(scaled.image)
    to_original = Affine.scaling(decoded.width / scaled_width, decoded.height / scaled_height)
    return SizedImage(
        pixels,
        decoded.width,
        decoded.height,
        reasons if view.found else (*reasons, POSE),
        to_original @ view.source_to_decoded @ view.to_source,
    )


def _size(image: Image.Image | NDArray[np.uint8]) -> tuple[int, int]:
    """Return the (width, height) of an image in pixels."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


def _resized(
    image: Image.Image | NDArray[np.uint8], size: tuple[int, int], preprocessing: Preprocessing
) -> Image.Image | NDArray[np.uint8]:
    """Resize an image as the preprocessing says; grey of mode F is always resized by Pillow."""
    if preprocessing.resize == PILLOW or (isinstance(image, Image.Image) and image.mode == "F"):
        return to_image(image).resize(size, Image.Resampling.BILINEAR)
    return resize(image, size)


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


def _resized_view(image: Image.Image | NDArray[np.uint8], size: tuple[int, int], preprocessing: Preprocessing) -> _View:
    resized = to_image(_resized(image, size, preprocessing))
    width, height = _size(image)
    return _View(resized, resized, IDENTITY, Affine.scaling(width / size[0], height / size[1]), True)


def _cut_out(image: Image.Image, preprocessing: Preprocessing, upright: Upright) -> _View:
    part = cut_out(image, upright, (preprocessing.width, preprocessing.height))
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


def _pixels(image: Image.Image | NDArray[np.uint8], preprocessing: Preprocessing) -> PreparedImage:
    """Return the pixels of an image of mode RGB, or F for grey."""
    values = np.asarray(image)
    if values.ndim == 2:
        values = np.repeat(values[:, :, np.newaxis], 3, axis=2)
    return values.astype(preprocessing.dtype, copy=False)
