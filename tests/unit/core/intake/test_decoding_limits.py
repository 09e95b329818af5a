"""Small files that would take minutes or gigabytes to decode are rejected."""

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Code, Failure, Refused
from core.intake import decoding_limits
from core.intake.decoding_limits import count_scans, has_short_header
from core.intake.image_decoding import Undecodable, decode, read_header
from tests.fixtures.hostile_images import jpeg, scan_bomb

LIMIT = 64_000_000


def tiff(strips: int, *, order: str = "<", big: bool = False) -> bytes:
    """A TIFF of one column, whose strips of one row all have the same data."""
    number, offset_format = (("Q", "Q"), "Q") if big else (("H", "I"), "I")
    start = 16 if big else 8
    offsets = struct.pack(f"{order}{strips}I", *[start] * strips)
    counts = struct.pack(f"{order}{strips}I", *[1] * strips)
    at = start + 8
    directory = at + len(offsets) + len(counts)
    values = {256: 1, 257: strips, 258: 8, 259: 1, 262: 1, 273: at, 277: 1, 278: 1, 279: at + len(offsets)}
    entries = b"".join(
        struct.pack(f"{order}HH{number[1]}{number[1]}", tag, 4, strips if tag in (273, 279) else 1, value)
        for tag, value in values.items()
    )
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    header = magic + (struct.pack(f"{order}HHQ", 8, 0, directory) if big else struct.pack(f"{order}I", directory))
    end = struct.pack(f"{order}{offset_format}", 0)
    return header + bytes(8) + offsets + counts + struct.pack(f"{order}{number[0]}", len(values)) + entries + end


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_chunks(image: bytes, chunks: int, content: bytes) -> bytes:
    """A PNG with further chunks before its pixels."""
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return image[:33] + chunk * chunks + image[33:]


def with_segments(image: bytes, segments: int, content: bytes) -> bytes:
    """A JPEG with further comments before its pixels."""
    return image[:2] + (b"\xff\xfe" + struct.pack(">H", len(content) + 2) + content) * segments + image[2:]


@pytest.mark.parametrize(
    ("image", "is_short"),
    [
        pytest.param(png(9, 9), True, id="png"),
        pytest.param(jpeg(), True, id="jpeg"),
        pytest.param(with_chunks(png(9, 9), 10, b"Comment" + bytes(300)), True, id="png-some-chunks"),
        pytest.param(with_chunks(png(9, 9), 200, b"Comment" + bytes(1000)), False, id="png-many-chunks"),
        pytest.param(with_chunks(png(9, 9), 1, b"IDAT" * 2000), False, id="png-decoy"),
        pytest.param(with_segments(jpeg(), 5, b"camera 7"), True, id="jpeg-some-segments"),
        pytest.param(with_segments(jpeg(), 2000, b""), False, id="jpeg-many-segments"),
        pytest.param(with_segments(jpeg(), 1, b"\xff\xda" * 4000), False, id="jpeg-decoy"),
        pytest.param(b"\xff\xd8" + bytes(100) + jpeg(), False, id="jpeg-broken"),
        pytest.param(png(9, 9)[:33], False, id="png-cut-off"),
        pytest.param(tiff(100_000), False, id="tiff"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_a_header_is_short_if_the_pixels_begin_early(image: bytes, is_short: bool) -> None:
    assert has_short_header(image) is is_short


@given(st.sampled_from([b"", png(2, 2)[:8], jpeg()[:2], png(2, 2), jpeg()]), st.binary(max_size=64))
def test_any_bytes_have_a_short_header_or_not(start: bytes, rest: bytes) -> None:
    assert has_short_header(start + rest) in (True, False)


@pytest.mark.parametrize("scans", [1000, 100_000])
def test_a_sequential_jpeg_with_many_scans_is_undecodable(scans: int) -> None:
    with pytest.raises(Undecodable, match="scans") as raised:
        decode(scan_bomb(scans, 8000), max_pixels=LIMIT)
    assert raised.value.failure is Failure.IMAGE_UNDECODABLE


def test_larger_jpegs_may_have_fewer_scans() -> None:
    decode(scan_bomb(40, 800), max_pixels=LIMIT)
    with pytest.raises(Undecodable, match="more than 15 scans"):
        decode(scan_bomb(40, 8000), max_pixels=LIMIT)


def test_scans_are_counted_in_every_kind_of_jpeg() -> None:
    assert count_scans(jpeg(), at_most=100) == 1
    assert count_scans(jpeg(progressive=True), at_most=100) == 10
    assert count_scans(jpeg(restart_marker_blocks=1), at_most=100) == 1
    assert count_scans(scan_bomb(37, 64), at_most=100) == 37
    assert count_scans(scan_bomb(37, 64), at_most=5) == 5


@pytest.mark.parametrize("marker", [0x01, 0x02, 0x7F, 0xBF])
def test_a_reserved_marker_hides_no_scans(marker: int) -> None:
    image = scan_bomb(37, 64)
    first = image.index(b"\xff\xda")
    assert count_scans(image[:first] + bytes([0xFF, marker, 0xFF, 0xFF]) + image[first:], at_most=100) == 37


def test_scans_in_a_thumbnail_or_after_the_image_are_not_counted() -> None:
    thumbnail = jpeg(16, progressive=True)
    assert count_scans(jpeg(exif=b"Exif\0\0" + thumbnail) + thumbnail, at_most=100) == 1


@given(st.binary(max_size=300), st.integers(0, 5))
def test_counting_scans_of_damaged_files_ends(data: bytes, at_most: int) -> None:
    assert 0 <= count_scans(b"\xff\xd8\xff" + data, at_most=at_most) <= at_most


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_an_image_with_an_extreme_side_is_too_large(size: tuple[int, int]) -> None:
    with pytest.raises(Refused) as raised:
        read_header(io.BytesIO(png(*size)), max_pixels=LIMIT)
    assert raised.value.code is Code.IMAGE_TOO_LARGE
    with pytest.raises(Undecodable) as undecodable:
        decode(png(*size), max_pixels=LIMIT)
    assert undecodable.value.failure is Failure.IMAGE_TOO_LARGE


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])  # Pillow reads no other BigTIFF
def test_a_tiff_with_too_many_strips_is_rejected(order: str, big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_limits, "TIFF_STRIPS", 50)
    assert read_header(io.BytesIO(tiff(50, order=order, big=big)), max_pixels=LIMIT).height == 50
    with pytest.raises(Refused, match="51 strips"):
        read_header(io.BytesIO(tiff(51, order=order, big=big)), max_pixels=LIMIT)
    with pytest.raises(Undecodable, match="51 strips"):
        decode(tiff(51, order=order, big=big), max_pixels=LIMIT)
