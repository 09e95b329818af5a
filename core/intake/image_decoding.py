"""Check the header of an image, and decode it: to 8-bit RGB, or grey of more bits at its full depth.

The files are untrusted. Nothing is decompressed before the size is known, Pillow's global limits are not changed, and
everything that its parsers raise becomes `Refused` or `Undecodable`.
"""

import io
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from core.errors import Code, Failure, Refused
from core.intake.decoding_limits import BODY_READS, HEADER_READS, BoundedReads, check_scans, check_size, check_tiff
from core.intake.deep_grey import DeepGrey, is_deep_grey, read_deep_grey, stored_and_named_bits
from core.intake.image_formats import media_type_of

MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "JPEG": "image/jpeg",
        "PNG": "image/png",
        "BMP": "image/bmp",
        "WebP": "image/webp",
        "TIFF": "image/tiff",
    }
)
"""The accepted formats and their media types."""

# The plug-ins are called directly: Image.open would check sizes against a process-wide limit, and would open a JPEG
# with further images as one of several frames. The first image of such a file is the primary one (CIPA DC-007). The
# parser stops at its end, so that what follows, such as a gain map, is neither read nor decoded.
_PARSERS: Final[Mapping[str, Callable[[BinaryIO], ImageFile.ImageFile]]] = MappingProxyType(
    {
        "JPEG": JpegImagePlugin.JpegImageFile,
        "PNG": PngImagePlugin.PngImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
    }
)
_FROM_PILLOW = re.compile(r"PIL\.")
_KINDS = {media_type: kind for kind, media_type in MEDIA_TYPES.items()}
_ORIENTATION = 0x0112
_TRANSPOSE: Final[Mapping[int, Image.Transpose]] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)


JpegDecoder = Callable[[bytes], NDArray[np.uint8] | None]
"""Decodes a JPEG, RGB or grey, or returns None if it cannot; Pillow then does, or says why it cannot either.

The pixels are RGB, (height, width, 3), as stored, the same as Pillow's: the orientation is not applied.
"""


@dataclass(frozen=True)
class Header:
    """Media type and size of an image, from its header.

    Attributes:
        media_type: detected from the content, never from what the sender declared; one of the values of `MEDIA_TYPES`.
        width: pixels, as displayed, i.e. after EXIF orientation.
        height: pixels, as displayed.
        deep_grey: whether it is grey of more than 8 bits.
    """

    media_type: str
    width: int
    height: int
    deep_grey: bool = False


@dataclass(frozen=True)
class Decoded:
    """A decoded image.

    Attributes:
        content: mode RGB, loaded; or the levels of grey of more than 8 bits, not reduced; or RGB pixels, uint8,
            (height, width, 3), if they are from a `JpegDecoder`.
        width: of the full image, pixels, as displayed; the content may be smaller.
        height: like `width`.
    """

    content: Image.Image | DeepGrey | NDArray[np.uint8]
    width: int
    height: int


class Undecodable(Exception):  # noqa: N818 - describes the fault
    """An image that cannot be decoded or read. Only its own inspection fails.

    Attributes:
        failure: the error code of the inspection, such as `IMAGE_UNDECODABLE`, `IMAGE_TOO_LARGE` or `IMAGE_MISSING`.
        detail: human-readable reason.
    """

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.failure = failure
        self.detail = detail


def read_header(file: BinaryIO, *, max_pixels: int) -> Header:
    """Detect the media type and size of an image without decoding it.

    Args:
        file: seekable; read from its start, and rewound to its start afterwards.
        max_pixels: the largest accepted width times height.

    Raises:
        Refused: EMPTY_BODY; UNSUPPORTED_MEDIA_TYPE unless it is one of the five formats; MULTIPLE_FRAMES for
            animations and pages; IMAGE_TOO_LARGE; MALFORMED_REQUEST for a broken header.
    """
    try:
        image, kind = _parse(file, max_pixels)
        width, height = _displayed_size(image)
    finally:
        file.seek(0)
    return Header(MEDIA_TYPES[kind], width, height, is_deep_grey(image))


def decode(data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, with its EXIF orientation applied:

    ============================  =====================================================================
    stored as                     becomes
    ============================  =====================================================================
    1-bit, 2- to 8-bit grey       scaled to 0 to 255, replicated to three channels
    16-bit grey                   value / 257, rounded: 0 to 65535 becomes 0 to 255, nothing is clipped
    12-bit grey (packed TIFF)     value * 255 / 4095, rounded
    32-bit integer grey           as 16-bit grey; refused if a value is outside 0 to 65535
    floating point                refused: it has no standard range
    palette                       its colours
    16-bit RGB                    the upper byte of each channel
    CMYK, YCCK (JPEG, TIFF)       Pillow's conversion, (255 - C)(255 - K) / 255; Adobe's inverted JPEGs are
                                  recognised
    YCbCr                         BT.601, full range
    alpha, transparency           dropped, the stored colour is used: an image of a part has no
                                  background to blend it with
    colour profiles               ignored: pixel values are compared, not appearance
    EXIF orientation              applied
    JPEG with further images      its first, primary image: phones append gain maps and previews
    ============================  =====================================================================

    Args:
        data: an encoded image.
        max_pixels: the largest accepted width times height.
        at_least: (width, height) in pixels as displayed; a JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size
            as long as both sides stay at least this large. Other formats are decoded at full size.

    Returns:
        A loaded image of mode RGB.

    Raises:
        Undecodable: for any fault in the data. Nothing else is raised.
    """
    content = decode_stored(data, max_pixels=max_pixels, at_least=at_least).content
    if isinstance(content, DeepGrey):
        return content.to_rgb()
    assert isinstance(content, Image.Image)  # noqa: S101 - no other decoder was given
    return content


def decode_stored(
    data: bytes, *, max_pixels: int, at_least: tuple[int, int] | None = None, jpeg_decoder: JpegDecoder | None = None
) -> Decoded:
    """Like `decode`, but grey of more than 8 bits is not reduced.

    Args:
        jpeg_decoder: decodes JPEGs at full size; Pillow decodes everything else.

    Raises:
        Undecodable: see `decode`.
    """
    try:
        image, _ = _parse(io.BytesIO(data), max_pixels)
    except Refused as refusal:
        too_large = refusal.code is Code.IMAGE_TOO_LARGE
        failure = Failure.IMAGE_TOO_LARGE if too_large else Failure.IMAGE_UNDECODABLE
        raise Undecodable(failure, refusal.detail) from refusal
    width, height = _displayed_size(image)  # before a reduced decode changes it
    try:
        return Decoded(_load(image, data, at_least, jpeg_decoder), width, height)
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:
        raise Undecodable(Failure.IMAGE_TOO_LARGE, f"the image is too large: {error}") from error
    except Exception as error:  # Pillow's decoders raise every kind
        detail = f"the image cannot be decoded: {_reason(error)}"
        raise Undecodable(Failure.IMAGE_UNDECODABLE, detail) from error


def _load(
    image: ImageFile.ImageFile,
    data: bytes,
    at_least: tuple[int, int] | None,
    jpeg_decoder: JpegDecoder | None,
) -> Image.Image | DeepGrey | NDArray[np.uint8]:
    """Decode a parsed image, at a reduced scale where allowed, with its orientation applied."""
    orientation = _orientation(image)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        check_scans(data, image.size)
        full_size = image.size
        if at_least is not None:
            # Orientations 5 to 8 swap width and height.
            image.draft("RGB", at_least[::-1] if orientation >= 5 else at_least)
        is_plain = image.size == full_size and image.mode in ("RGB", "L")
        if jpeg_decoder is not None and is_plain and (pixels := jpeg_decoder(data)) is not None:
            return _turn(pixels, orientation)
    image.load()
    upright: Image.Image = image
    if orientation in _TRANSPOSE and not isinstance(image, TiffImagePlugin.TiffImageFile):
        upright = image.transpose(_TRANSPOSE[orientation])  # TIFF's loader has applied it already
    if is_deep_grey(upright):
        stored_bits, named_bits = stored_and_named_bits(image, data)
        return read_deep_grey(upright, stored_bits=stored_bits, named_bits=named_bits)
    return _to_rgb(upright)


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Apply an EXIF orientation."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels.copy() if orientation > 1 else pixels  # others need rows in order, even a single one


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB by the table of `decode`."""
    mode = image.mode
    if mode == "F":
        raise Undecodable(
            Failure.IMAGE_UNDECODABLE,
            "floating-point images have no standard range: store 8 or 16 bits per channel",
        )
    if mode in ("P", "PA", "RGBa"):
        image = image.convert("RGBA")  # a direct conversion would blend the transparency, or warn about it
    if "transparency" in image.info:
        # Otherwise Pillow would build an alpha channel, which is dropped anyway.
        del image.info["transparency"]
    return image if image.mode == "RGB" else image.convert("RGB")


def _parse(file: BinaryIO, max_pixels: int) -> tuple[ImageFile.ImageFile, str]:
    """Parse the header; returns the image, not yet decoded, and its format as named in `MEDIA_TYPES`."""
    _silence_pillow()
    file.seek(0)
    kind = _kind(file.read(32))
    try:
        if kind == "WebP":
            _check_webp(file, max_pixels)  # Pillow allocates the canvas when it opens a WebP
        if kind == "TIFF":
            check_tiff(file)
        file.seek(0)
        bounded = BoundedReads(file, HEADER_READS)
        image = _PARSERS[kind](cast(BinaryIO, bounded))
    except Refused:
        raise
    except Image.DecompressionBombError as error:
        raise Refused(Code.IMAGE_TOO_LARGE, f"the image is too large: {error}") from error
    except Exception as error:  # Pillow's parsers raise every kind
        detail = f"the file starts like a {kind} image, but its header cannot be read: {_reason(error)}"
        raise Refused(Code.MALFORMED_REQUEST, detail) from error
    check_size(image.size, max_pixels)
    if getattr(image, "is_animated", False):
        raise _many_frames(kind)
    bounded.reads_left = BODY_READS
    return image, kind


def _kind(start: bytes) -> str:
    """The format by the first bytes of the file, as named in `MEDIA_TYPES`."""
    if not start:
        raise Refused(Code.EMPTY_BODY, "the image is empty: send the bytes of an image file")
    media_type = media_type_of(start)
    if media_type is not None:
        return _KINDS[media_type]
    raise Refused(
        Code.UNSUPPORTED_MEDIA_TYPE,
        f"unsupported file format: convert the image to one of {', '.join(MEDIA_TYPES)}",
    )


def _check_webp(file: BinaryIO, max_pixels: int) -> None:
    """Refuse a WebP that is too large or animated, by its first chunk (RFC 9649, sections 2.5 to 2.7)."""
    file.seek(12)
    chunk, payload = file.read(4), file.read(14)[4:]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(payload[at : at + 3], "little") + 1 for at in (4, 7))
        if payload[0] & 0x02:
            raise _many_frames("WebP")
    elif chunk == b"VP8L":
        (packed,) = struct.unpack("<I", payload[1:5])
        width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    elif chunk == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", payload[6:10]))
    else:
        raise ValueError("its first chunk must be VP8, VP8L or VP8X")
    check_size((width, height), max_pixels)


def _many_frames(kind: str) -> Refused:
    return Refused(Code.MULTIPLE_FRAMES, f"the {kind} file contains more than one image: send one image per file")


def _displayed_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """(width, height) in pixels, with the orientation applied."""
    width, height = image.size
    if _orientation(image) >= 5 and not isinstance(image, TiffImagePlugin.TiffImageFile):
        return height, width  # TIFF's size is already as displayed
    return width, height


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1 if it is missing or unreadable.

    Only EXIF in the header counts. XMP, and EXIF after the pixels of a PNG, are ignored: Pillow decodes to find them.
    """
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            value = image.tag_v2.get(_ORIENTATION, 1)
        else:
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
            value = exif.get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata is no reason to refuse valid pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _reason(error: Exception) -> str:
    """The last line of an exception's message, or its type if the message is empty."""
    return str(error).strip().rpartition("\n")[2] or type(error).__name__


def _silence_pillow() -> None:
    """Ignore Pillow's warnings for the rest of the process: they are about the files, not about our code.

    `warnings.catch_warnings` swaps process-wide state and is not thread-safe; a permanent filter is. It is checked on
    every call because leaving a `catch_warnings` block restores the older filters.
    """
    if not any(filter_[3] == _FROM_PILLOW for filter_ in warnings.filters):
        warnings.filterwarnings("ignore", module=_FROM_PILLOW.pattern)
