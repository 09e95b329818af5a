"""Grey images of more than 8 bits keep their levels, and files name their depth."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.intake.deep_grey import DeepGrey
from core.intake.image_decoding import Undecodable, decode, decode_stored, read_header
from tests.fixtures.deep_images import Levels, deep_levels, deep_png, deep_tiff, packed_tiff
from tests.fixtures.part_images import encoded, part

LIMIT = 1_000_000


def deep(data: bytes) -> DeepGrey:
    content = decode_stored(data, max_pixels=LIMIT).content
    assert isinstance(content, DeepGrey)
    return content


@pytest.mark.parametrize(
    ("write", "stored_bits", "named_bits"),
    [
        pytest.param(deep_png, 16, None, id="png"),
        pytest.param(lambda levels: deep_png(levels, significant_bits=12), 16, 12, id="png-sbit"),
        pytest.param(deep_tiff, 16, None, id="tiff"),
        pytest.param(lambda levels: deep_tiff(levels, big_endian=True), 16, None, id="tiff-big-endian"),
        pytest.param(packed_tiff, 12, 12, id="tiff-packed"),
    ],
)
def test_levels_are_decoded_as_stored(
    write: Callable[[Levels], bytes], stored_bits: int, named_bits: int | None
) -> None:
    levels = deep_levels(1)
    data = write(levels)
    assert read_header(io.BytesIO(data), max_pixels=LIMIT).deep_grey
    decoded = decode_stored(data, max_pixels=LIMIT)
    assert (decoded.width, decoded.height) == (96, 64)
    content = deep(data)
    assert content.levels.dtype == np.uint16
    assert np.array_equal(content.levels, levels)
    assert (content.stored_bits, content.named_bits) == (stored_bits, named_bits)


@pytest.mark.parametrize("chunk", [b"", b"\x00", b"\x11", b"\x0c\x0c\x0c"], ids=["empty", "0", "17", "three"])
def test_an_invalid_sbit_names_no_depth(chunk: bytes) -> None:
    data = deep_png(deep_levels(1))
    content = struct.pack(">I", len(chunk)) + b"sBIT" + chunk + struct.pack(">I", zlib.crc32(b"sBIT" + chunk))
    at = data.index(b"IDAT") - 4
    assert deep(data[:at] + content + data[at:]).named_bits is None


def test_an_sbit_behind_the_pixels_names_no_depth() -> None:
    data = deep_png(deep_levels(1))
    chunk = struct.pack(">I", 1) + b"sBIT\x0c" + struct.pack(">I", zlib.crc32(b"sBIT\x0c"))
    assert deep(data[:-12] + chunk + data[-12:]).named_bits is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WebP", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_of_8_bits_are_decoded_to_rgb(kind: str, mode: str) -> None:
    data = encoded(part(1).convert(mode), kind)
    assert not read_header(io.BytesIO(data), max_pixels=LIMIT).deep_grey
    content = decode_stored(data, max_pixels=LIMIT).content
    assert isinstance(content, Image.Image)
    assert np.array_equal(np.asarray(content), np.asarray(decode(data, max_pixels=LIMIT)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_levels_are_upright(kind: str) -> None:
    levels = deep_levels(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90°
    decoded = decode_stored(encoded(Image.fromarray(levels), kind, exif=exif), max_pixels=LIMIT)
    assert (decoded.width, decoded.height) == (64, 96)
    assert isinstance(decoded.content, DeepGrey)
    assert np.array_equal(decoded.content.levels, np.rot90(levels, -1))


@given(bits=st.integers(8, 16), level=st.integers(0, 65535))
def test_an_8_bit_copy_is_scaled_by_the_depth(bits: int, level: int) -> None:
    full = (1 << bits) - 1
    level = min(level, full)
    copy = DeepGrey(np.full((1, 1), level, np.uint16), 16, None).to_rgb(bits)
    assert copy.getpixel((0, 0)) == (round(level * 255 / full),) * 3


VALID = [
    deep_png(deep_levels(1), significant_bits=12),
    deep_tiff(deep_levels(1), big_endian=True),
    packed_tiff(deep_levels(1)),
]


@given(data=st.data(), image=st.sampled_from(VALID))
def test_mutated_images_raise_only_undecodable(data: st.DataObject, image: bytes) -> None:
    mutated = bytearray(image[: data.draw(st.integers(8, len(image)))])
    for _ in range(data.draw(st.integers(0, 6))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Undecodable):
        decode_stored(bytes(mutated), max_pixels=LIMIT)
