"""Limits on the cost of decoding an image: a small file must not take minutes or gigabytes.

They are far above what cameras and encoders write. No normal image reaches them.
"""

import io
import re
import struct
from typing import BinaryIO

from core.errors import Code, Refused

LONGEST_SIDE = 100_000
"""Pixels. An image of 1 × 60,000,000 pixels needs 1.2 GB: decoders keep a pointer and a buffer for each row."""

JPEG_SCANS = 100
"""Each scan of a JPEG may cover the whole image, even if it has no data. Encoders write at most about ten."""

JPEG_SCANNED_PIXELS = 1_000_000_000
"""Scans times pixels of a JPEG; one core decodes about 50 million of them per second."""

TIFF_STRIPS = 200_000
"""Pillow keeps a Python object for each strip or tile: a million take 10 s."""

SHORT_HEADER_BYTES = 4096
"""Where the pixels of a usual JPEG or PNG begin. Parsing so much takes less than 10 ms, whatever it contains."""

HEADER_READS = 20_000
BODY_READS = 2_000_000
"""Python parses some formats read by read: a file made of tiny segments would take minutes."""

_PNG, _JPEG, _SCAN = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xda"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # without stuffed bytes, restarts and fill bytes
_FIRST_WITH_LENGTH = 0xC0  # decoders skip only two bytes at a reserved marker in a scan: a length would hide scans
_START_OF_IMAGE = 0xD8
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Check the (width, height) of an image.

    Raises:
        Refused: IMAGE_TOO_LARGE.
    """
    width, height = size
    if width * height > max_pixels:
        detail = f"the image has {width} × {height} = {width * height} pixels, at most {max_pixels} are accepted"
        raise Refused(Code.IMAGE_TOO_LARGE, detail)
    if max(size) > LONGEST_SIDE:
        detail = f"the image has {width} × {height} pixels, at most {LONGEST_SIDE} are accepted on a side"
        raise Refused(Code.IMAGE_TOO_LARGE, detail)


def has_short_header(data: bytes) -> bool:
    """Whether an image is a JPEG or PNG whose pixels begin early. Other headers may take half a second of a core.

    Segments are skipped by their length, as parsers do.
    """
    if data.startswith(_PNG):
        at = len(_PNG)
        while at < SHORT_HEADER_BYTES and data[at + 4 : at + 8] != b"IDAT":
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif data.startswith(_JPEG):
        at = len(_JPEG)
        while at < SHORT_HEADER_BYTES and data[at : at + 2] != _SCAN:
            if data[at : at + 1] != b"\xff":
                return False
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    else:
        return False
    return at < min(SHORT_HEADER_BYTES, len(data))


def check_scans(jpeg: bytes, size: tuple[int, int]) -> None:
    """Check the number of scans of a JPEG, sequential or progressive.

    Raises:
        ValueError: decoding them would take too long.
    """
    width, height = size
    most = min(JPEG_SCANS, JPEG_SCANNED_PIXELS // (width * height))
    if count_scans(jpeg, at_most=most + 1) > most:
        raise ValueError(f"it has more than {most} scans, which would take too long: save it again")


def count_scans(jpeg: bytes, *, at_most: int) -> int:
    """The number of scans before the end of a JPEG's image, counted up to `at_most` (ITU-T T.81, annex B).

    Segments are skipped by their length, so that a thumbnail in the metadata does not count.
    """
    scans, at = 0, 0
    while scans < at_most and (found := _MARKER.search(jpeg, at)):
        marker, at = jpeg[found.start() + 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker >= _FIRST_WITH_LENGTH and marker != _START_OF_IMAGE:
            scans += marker == _START_OF_SCAN
            at += int.from_bytes(jpeg[at : at + 2], "big")
    return scans


def check_tiff(file: BinaryIO) -> None:
    """Check the number of strips or tiles of a TIFF before Pillow makes objects of them.

    Args:
        file: a TIFF or BigTIFF; its position is changed.

    Raises:
        Refused: MALFORMED_REQUEST if there are too many.
        struct.error: the first directory is cut off.
    """
    file.seek(0)
    start = file.read(16)
    order, is_big = ("<" if start[:2] == b"II" else ">"), 43 in (start[2], start[3])
    (offset,) = struct.unpack(f"{order}Q", start[8:16]) if is_big else struct.unpack(f"{order}I", start[4:8])
    file.seek(offset)
    number, entry = (struct.Struct(f"{order}{kind}") for kind in (("Q", "HHQQ") if is_big else ("H", "HHII")))
    (entries,) = number.unpack(file.read(number.size))
    for _ in range(min(entries, HEADER_READS)):
        tag, _, count, _ = entry.unpack(file.read(entry.size))
        if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > TIFF_STRIPS:
            detail = f"the TIFF has {count} strips or tiles, at most {TIFF_STRIPS} are accepted: save it again"
            raise Refused(Code.MALFORMED_REQUEST, detail)


class BoundedReads:
    """A file that raises ValueError after a number of reads."""

    def __init__(self, file: BinaryIO, reads_left: int) -> None:
        self._file = file
        self.reads_left = reads_left

    def read(self, size: int = -1) -> bytes:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise ValueError("it consists of too many small segments")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
