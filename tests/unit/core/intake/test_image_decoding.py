"""Header checks and decoding of images."""

import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin

from core.errors import Code, Failure, Refused
from core.intake.image_decoding import Header, Undecodable, decode, read_header

LIMIT = 1_000_000
FORMATS = ["JPEG", "PNG", "BMP", "WebP", "TIFF"]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def colours(width: int = 40, height: int = 24) -> Image.Image:
    """An image with four different corners."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = (255 * columns / (width - 1), 255 * rows / (height - 1), np.full_like(rows, 90))
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def header(data: bytes, *, max_pixels: int = LIMIT) -> Header:
    return read_header(io.BytesIO(data), max_pixels=max_pixels)


def refusal(data: bytes, *, max_pixels: int = LIMIT) -> Code:
    with pytest.raises(Refused) as refused:
        header(data, max_pixels=max_pixels)
    assert "\n" not in refused.value.detail
    return refused.value.code


def failure(data: bytes, *, max_pixels: int = LIMIT) -> Failure:
    with pytest.raises(Undecodable) as undecodable:
        decode(data, max_pixels=max_pixels)
    assert "\n" not in undecodable.value.detail
    return undecodable.value.failure


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    image = decode(data, max_pixels=LIMIT)
    assert image.mode == "RGB"
    return np.asarray(image)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, content in chunks:
        parts.append(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return b"".join(parts)


def png_header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


# The header


@pytest.mark.parametrize("kind", FORMATS)
def test_read_header_returns_media_type_and_size(kind: str) -> None:
    assert header(encoded(colours(), kind)) == Header(f"image/{kind.lower()}", 40, 24)


def test_read_header_rewinds_the_file() -> None:
    file = io.BytesIO(encoded(colours(), "PNG"))
    file.seek(7)
    read_header(file, max_pixels=LIMIT)
    assert file.tell() == 0


def test_an_empty_file_is_refused_as_empty_body() -> None:
    assert refusal(b"") is Code.EMPTY_BODY


@pytest.mark.parametrize(
    "data", [b"hello", b"GIF89a" + bytes(40), b"%PDF-1.7", b"\x00" * 64, b"RIFF\x00\x00\x00\x00WAVE", b"\xff\xd8"]
)
def test_other_content_is_an_unsupported_media_type(data: bytes) -> None:
    assert refusal(data) is Code.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("kind", ["GIF", "ICO", "JPEG2000", "PPM", "TGA", "AVIF"])
def test_other_pillow_formats_are_an_unsupported_media_type(kind: str) -> None:
    assert refusal(encoded(colours(), kind)) is Code.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_files_with_several_frames_are_refused(kind: str) -> None:
    data = encoded(colours(), kind, save_all=True, append_images=[Image.new("RGB", (40, 24))])
    assert refusal(data) is Code.MULTIPLE_FRAMES
    assert failure(data) is Failure.IMAGE_UNDECODABLE


@pytest.mark.parametrize("kind", FORMATS)
def test_too_many_pixels_are_refused_and_the_message_names_both_numbers(kind: str) -> None:
    data = encoded(colours(), kind)
    assert header(data, max_pixels=960).width == 40
    with pytest.raises(Refused, match=r"40 × 24 = 960 pixels, at most 959") as refused:
        header(data, max_pixels=959)
    assert refused.value.code is Code.IMAGE_TOO_LARGE
    assert failure(data, max_pixels=959) is Failure.IMAGE_TOO_LARGE


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    bomb = png(png_header(side, side), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    assert refusal(bomb) is Code.IMAGE_TOO_LARGE
    assert failure(bomb) is Failure.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "chunk", [b"VP8X\x0a\x00\x00\x00\x10\x00\x00\x00" + b"\xff" * 6, b"VP8L\x0a\x00\x00\x00\x2f" + b"\xff" * 9]
)
def test_a_webp_bomb_is_refused_before_its_canvas_is_allocated(chunk: bytes) -> None:
    assert refusal(b"RIFF\x40\x00\x00\x00WEBP" + chunk + bytes(40)) is Code.IMAGE_TOO_LARGE


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_header_is_malformed(kind: str) -> None:
    assert refusal(encoded(colours(), kind)[:14]) is Code.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xff" * 3_000_000,
        b"\xff\xd8" + b"\xff\xe1\x00\x02" * 1_000_000,
        png(png_header(8, 8)) + png(*[(b"abCd", b"")] * 200_000)[8:],
    ],
    ids=["padding", "segments", "chunks"],
)
def test_a_header_with_too_many_segments_is_refused_early(data: bytes) -> None:
    assert refusal(data) is Code.MALFORMED_REQUEST


def test_the_size_includes_the_exif_orientation() -> None:
    for kind in ("JPEG", "PNG", "WebP", "TIFF"):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert header(encoded(colours(), kind, exif=exif)) == Header(f"image/{kind.lower()}", 24, 40), kind


def test_pillows_global_pixel_limit_is_unchanged() -> None:
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


def test_pillow_warnings_are_ignored_in_all_threads() -> None:
    truncated = encoded(colours(), "TIFF")[:-6]  # Pillow warns about its truncated tags

    def read() -> None:
        for _ in range(20):
            with contextlib.suppress(Refused):
                header(truncated)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(read) for _ in range(4)]:
                future.result()
    assert not caught


# Conversion to RGB: one test per kind of image


def test_grey_is_replicated() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(pixels(encoded(Image.fromarray(grey), kind)), np.stack([grey] * 3, axis=2))


def test_one_bit_is_scaled_to_0_and_255() -> None:
    bits = np.indices((16, 16)).sum(axis=0) % 2 == 1
    expected = np.where(bits, 255, 0)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(pixels(encoded(Image.fromarray(bits), kind))[..., 1], expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_without_clipping(kind: str) -> None:
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    decoded = pixels(encoded(Image.fromarray(values), kind))
    assert np.array_equal(decoded[..., 0], np.round(values / 257))
    assert decoded.min() == 0
    assert decoded.max() == 255


def test_big_endian_16_bit_grey_is_scaled_the_same() -> None:
    values = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    image = Image.frombytes("I;16B", (64, 64), values.astype(">u2").tobytes())
    assert np.array_equal(pixels(encoded(image, "TIFF"))[..., 2], np.round(values / 257))


def test_packed_12_bit_grey_is_scaled_by_4095() -> None:
    file = io.BytesIO()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 78, 277: 1, 278: 1, 279: 3}.items():
        tags[tag] = value
    file.write(b"II*\x00\x08\x00\x00\x00")
    tags.save(file)
    # Saving moves the strip offset behind the tags.
    file.write(bytes(200 - file.tell()) + bytes([0xFF, 0xF8, 0x00]))  # 4095 and 2048
    assert pixels(file.getvalue())[0, :, 0].tolist() == [255, 128]


def test_32_bit_grey_is_scaled_as_16_bit_and_refused_outside_that_range() -> None:
    values = np.array([[0, 257], [65535, 25700]], dtype=np.int32)
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0].tolist() == [[0, 1], [255, 100]]
    for invalid in (-1, 65536):
        values[0, 0] = invalid
        assert failure(encoded(Image.fromarray(values), "TIFF")) is Failure.IMAGE_UNDECODABLE


def test_floating_point_is_refused() -> None:
    assert failure(encoded(Image.new("F", (4, 4), 0.5), "TIFF")) is Failure.IMAGE_UNDECODABLE


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_palette_is_expanded(kind: str) -> None:
    palette = colours().quantize(64)
    assert np.array_equal(pixels(encoded(palette, kind)), np.asarray(palette.convert("RGB")))


def test_transparent_palette_entries_keep_their_colour() -> None:
    palette = colours().quantize(64)
    data = encoded(palette, "PNG", transparency=bytes([0, 128] + [255] * 62))
    assert np.array_equal(pixels(data), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WebP"])
def test_alpha_is_dropped_and_the_stored_colour_is_kept(kind: str) -> None:
    image = colours().copy()
    image.putalpha(0)
    options = {"lossless": True, "exact": True} if kind == "WebP" else {}
    assert np.array_equal(pixels(encoded(image, kind, **options)), np.asarray(colours()))


def test_alpha_of_a_grey_image_is_dropped() -> None:
    image = Image.merge("LA", (Image.new("L", (4, 4), 77), Image.new("L", (4, 4), 3)))
    assert (pixels(encoded(image, "PNG")) == 77).all()


def test_a_transparent_grey_value_is_kept() -> None:
    data = encoded(Image.new("L", (4, 4), 9), "PNG", transparency=9)
    assert (pixels(data) == 9).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_by_pillow(kind: str) -> None:
    image = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (200, 40, 10, 30)])
    decoded = pixels(encoded(image, kind)).astype(int)
    assert np.abs(decoded - [49, 190, 216]).max() <= 3


def test_an_inverted_adobe_jpeg_is_recognised() -> None:
    image = Image.merge("CMYK", [Image.new("L", (16, 16), value) for value in (255, 255, 255, 0)])
    data = encoded(image, "JPEG")
    assert b"Adobe" in data  # libjpeg writes the marker; Pillow inverts on writing and on reading
    assert pixels(data).max() <= 3


def test_colour_profiles_are_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, profiled = encoded(colours(), "PNG"), encoded(colours(), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(plain), pixels(profiled))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    stored_by = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    upright = np.asarray(colours())
    stored = Image.fromarray(np.ascontiguousarray(stored_by[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WebP" else {}
    data = encoded(stored, kind, exif=exif, **options)
    decoded = pixels(data)
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 4
    assert header(data) == Header(f"image/{kind.lower()}", 40, 24)


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00rubbish", b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff", b"Exif\x00\x00"]
)
def test_an_image_with_broken_exif_is_still_decoded(exif: bytes) -> None:
    data = encoded(colours(), "JPEG", exif=exif)
    assert header(data).width == 40
    assert pixels(data).shape == (24, 40, 3)


# Decoding at a reduced scale


@pytest.mark.parametrize("orientation", [1, 6])
@given(width=st.integers(8, 300), height=st.integers(8, 300), least=st.tuples(st.integers(1, 64), st.integers(1, 64)))
def test_a_reduced_jpeg_is_at_least_as_large_as_requested(
    orientation: int, width: int, height: int, least: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (width, height), "teal"), "JPEG", exif=exif)
    full = decode(data, max_pixels=LIMIT)
    reduced = decode(data, max_pixels=LIMIT, at_least=least)
    assert reduced.width >= min(least[0], full.width)
    assert reduced.height >= min(least[1], full.height)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale() -> None:
    data = encoded(Image.new("RGB", (800, 640)), "JPEG")
    assert decode(data, max_pixels=LIMIT, at_least=(200, 160)).size == (200, 160)
    assert decode(data, max_pixels=LIMIT, at_least=(201, 160)).size == (400, 320)
    assert decode(data, max_pixels=LIMIT).size == (800, 640)


# Damage


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_image_is_undecodable_unless_all_pixels_are_present(kind: str) -> None:
    data = encoded(colours(), kind)
    whole = pixels(data)
    complete = []
    for end in range(len(data)):
        with contextlib.suppress(Undecodable):
            complete.append(np.array_equal(pixels(data[:end]), whole))
    assert all(complete)
    assert len(complete) < 0.2 * len(data)


def test_a_jpeg_with_too_many_scans_is_undecodable() -> None:
    data = encoded(colours(), "JPEG", progressive=True)
    assert pixels(data).shape == (24, 40, 3)
    assert (
        failure(data[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 200 + data[-2:]) is Failure.IMAGE_UNDECODABLE
    )


VALID = [encoded(colours(), kind) for kind in FORMATS] + [
    encoded(colours().quantize(16), "PNG"),
    encoded(colours(), "JPEG", progressive=True),
    encoded(colours(), "TIFF", compression="tiff_lzw"),
    encoded(colours(), "WebP", lossless=True),
]


@given(data=st.data(), image=st.sampled_from(VALID))
def test_mutated_images_raise_only_the_documented_errors(data: st.DataObject, image: bytes) -> None:
    mutated = bytearray(image)
    for _ in range(data.draw(st.integers(1, 6))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(mutated[: data.draw(st.integers(0, len(mutated)))]) if data.draw(st.booleans()) else bytes(mutated)
    with contextlib.suppress(Refused):
        header(cut)
    with contextlib.suppress(Undecodable):
        assert decode(cut, max_pixels=LIMIT).mode == "RGB"


@given(st.binary(max_size=200), st.sampled_from([b"", *(image[:12] for image in VALID)]))
def test_arbitrary_bytes_raise_only_the_documented_errors(data: bytes, start: bytes) -> None:
    with pytest.raises(Refused):
        header(start + data)
    with pytest.raises(Undecodable):
        decode(start + data, max_pixels=LIMIT)


def test_read_header_accepts_an_open_file_and_keeps_it_open(tmp_path: Path) -> None:
    path = tmp_path / "part.tif"
    path.write_bytes(encoded(colours(), "TIFF"))
    with path.open("rb") as file:
        assert read_header(file, max_pixels=LIMIT).media_type == "image/tiff"
        assert not file.closed
