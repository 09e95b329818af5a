"""Grey images of more than 8 bits: their levels as stored, the depth that the file names, and 8-bit copies.

A camera of 10, 12 or 14 bits writes its levels into 16 bits, mostly right-aligned: 12 bits are then 0 to 4095.
"""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_UNPACKED_BITS: Final = 16
_PACKED_BITS: Final = 12
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_BYTES: Final = 12  # its length, name and checksum


@dataclass(frozen=True)
class DeepGrey:
    """A decoded grey image of more than 8 bits.

    Attributes:
        levels: uint16, (height, width), upright, as stored: 0 to 2 ** stored_bits - 1.
        stored_bits: bits of a stored sample: 12 for a packed TIFF, otherwise 16.
        named_bits: the depth that the file names, 1 to 16: PNG's sBIT, or TIFF's BitsPerSample if it is below 16. None
            if it names none: 16 bits may hold any depth.
    """

    levels: NDArray[np.uint16]
    stored_bits: int
    named_bits: int | None

    @property
    def highest(self) -> int:
        """The highest level of the image."""
        return int(self.levels.max())

    def to_rgb(self, bits: int | None = None) -> Image.Image:
        """Return an 8-bit RGB copy: level · 255 / (2 ** bits - 1), rounded.

        Args:
            bits: 8 to 16, enough for the highest level; None for `stored_bits`.
        """
        full = (1 << (bits or self.stored_bits)) - 1
        scaled = (np.arange(full + 1, dtype=np.uint32) * 255 + full // 2) // full
        return Image.fromarray(scaled.astype(np.uint8)[self.levels]).convert("RGB")


def is_deep_grey(image: Image.Image) -> bool:
    """Return whether an opened image, decoded or not, is grey of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;16")


def read_deep_grey(image: Image.Image, *, stored_bits: int, named_bits: int | None) -> DeepGrey:
    """Return the levels of a decoded and upright image.

    Raises:
        ValueError: 32-bit values that are not within 0 to 65535.
    """
    values = np.asarray(image)
    full = (1 << stored_bits) - 1
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > full:
        raise ValueError(f"grey values must be within 0 to {full}; this image has {low} to {high}")
    return DeepGrey(values.astype(np.uint16, copy=False), stored_bits, named_bits)


def stored_and_named_bits(image: Image.Image, data: bytes) -> tuple[int, int | None]:
    """Return `DeepGrey.stored_bits` and `DeepGrey.named_bits` of an opened image.

    Args:
        image: deep grey, in mode and tags as Pillow opened it.
        data: the file.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        stored = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE)
        # Pillow returns 12 bits as 16 without scaling them.
        return (_PACKED_BITS, _PACKED_BITS) if stored in (_PACKED_BITS, (_PACKED_BITS,)) else (_UNPACKED_BITS, None)
    return _UNPACKED_BITS, _png_significant_bits(data) if data.startswith(_PNG_SIGNATURE) else None


def _png_significant_bits(data: bytes) -> int | None:
    """Return the significant bits of a grey PNG by its sBIT chunk (W3C PNG, 11.3.2.7); None without a valid one."""
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":  # sBIT precedes the pixels
            return None
        if name == b"sBIT":
            bits = data[at + 8] if length == 1 and at + 8 < len(data) else 0
            return bits if 1 <= bits <= _UNPACKED_BITS else None
        at += length + _PNG_CHUNK_BYTES
    return None
