"""JPEGs with further images, as phones write them: everything that decodes takes the primary one."""

import io

import numpy as np
import pytest
from PIL import Image

from core.intake.image_decoding import Header, decode, decode_stored, read_header
from core.vision.input.decoding import _decode_jpeg

LIMIT = 1_000_000
TURNED = Image.Exif()
TURNED[0x0112] = 6


def primary() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 80, 3), dtype=np.uint8))


def jpeg(**options: object) -> bytes:
    file = io.BytesIO()
    primary().save(file, "JPEG", **options)
    return file.getvalue()


def multi_image(*others: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    primary().save(file, "MPO", save_all=True, append_images=others, **options)
    return file.getvalue()


def with_gain_map() -> bytes:
    """A JPEG that names a gain map in its XMP (Ultra HDR) and has it behind the end of its own image."""
    xmp = b'http://ns.adobe.com/xap/1.0/\x00<x hdrgm:Version="1.0"/>'
    segment = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    file = multi_image(Image.new("L", (20, 12), 200))
    return file[:2] + segment + file[2:]


PHONES = {
    "preview": multi_image(Image.new("RGB", (40, 24), "red")),
    "disparity": multi_image(Image.new("RGB", (80, 48), "red"), Image.new("RGB", (80, 48), "blue")),
    "gain map": with_gain_map(),
    "gain map without an index": jpeg() + jpeg(),
}


@pytest.mark.parametrize("name", PHONES)
def test_the_primary_image_is_inspected(name: str) -> None:
    data = PHONES[name]
    expected = np.asarray(decode(jpeg(), max_pixels=LIMIT))
    assert read_header(io.BytesIO(data), max_pixels=LIMIT) == Header("image/jpeg", 80, 48)
    assert np.array_equal(np.asarray(decode(data, max_pixels=LIMIT)), expected)
    scored = decode_stored(data, max_pixels=LIMIT, jpeg_decoder=_decode_jpeg)
    assert (scored.width, scored.height) == (80, 48)
    assert isinstance(scored.content, np.ndarray)
    assert np.array_equal(scored.content, expected)


def test_the_primary_image_is_turned_upright_and_may_be_reduced() -> None:
    data = multi_image(Image.new("RGB", (40, 24), "red"), exif=TURNED)
    assert read_header(io.BytesIO(data), max_pixels=LIMIT) == Header("image/jpeg", 48, 80)
    expected = np.asarray(decode(jpeg(exif=TURNED), max_pixels=LIMIT))
    assert np.array_equal(np.asarray(decode(data, max_pixels=LIMIT)), expected)
    reduced = decode(data, max_pixels=LIMIT, at_least=(12, 20))
    assert reduced.size == (12, 20)


def test_further_images_do_not_count_as_scans() -> None:
    many = multi_image(*[Image.new("RGB", (8, 8), "red")] * 120)
    assert decode(many, max_pixels=LIMIT).size == (80, 48)
