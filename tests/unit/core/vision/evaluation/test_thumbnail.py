"""Thumbnails are small, upright and of the right brightness; similarities are correlations."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from core.intake.image_decoding import Undecodable
from core.models.bit_depths import BitDepth
from core.vision.evaluation.thumbnail import GREY_BYTES, GREY_SIDE, make_thumbnail, similarities
from tests.fixtures.deep_images import deep_levels, deep_png, deep_tiff
from tests.fixtures.part_images import encoded, part

LIMIT = 4_000_000


def thumbnail(data: bytes, bit_depth: BitDepth | None = None) -> Image.Image:
    """The decoded JPEG of a thumbnail."""
    image = Image.open(io.BytesIO(make_thumbnail(data, bit_depth, max_pixels=LIMIT).jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WebP", "TIFF"])
@pytest.mark.parametrize(
    ("size", "reduced"), [((640, 480), (256, 192)), ((300, 900), (85, 256)), ((40, 30), (40, 30)), ((900, 1), (256, 1))]
)
def test_a_thumbnail_keeps_the_shape_of_an_image_of_any_format(
    kind: str, size: tuple[int, int], reduced: tuple[int, int]
) -> None:
    image = part(1, size=size)
    drawn = thumbnail(encoded(image, kind))
    assert drawn.size == reduced
    expected = np.asarray(image.resize(reduced, Image.Resampling.BOX)).astype(float)
    assert np.abs(np.asarray(drawn) - expected).mean() < 8


def test_a_thumbnail_is_upright() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    image = Image.new("RGB", (400, 200), (200, 30, 30))
    image.paste((30, 30, 200), (0, 0, 200, 200))
    drawn = thumbnail(encoded(image, "JPEG", exif=turned))
    assert drawn.size == (128, 256)
    top, bottom = (np.asarray(drawn)[row].mean(axis=0) for row in (10, -10))
    assert top[2] > 150 > top[0]
    assert bottom[0] > 150 > bottom[2]


@pytest.mark.parametrize("depth", [10, 12, 14])
def test_deep_grey_is_scaled_by_its_depth(depth: BitDepth) -> None:
    levels = deep_levels(3, depth)
    expected = levels.mean() / ((1 << depth) - 1) * 255
    for data in (deep_png(levels), deep_tiff(levels), deep_png(levels, significant_bits=depth)):
        assert np.asarray(thumbnail(data, depth)).mean() == pytest.approx(expected, abs=2)
    assert np.asarray(thumbnail(deep_png((levels >> 3).astype(np.uint16)), depth)).mean() == pytest.approx(
        expected / 8, abs=2
    )


def test_a_broken_or_too_large_image_is_undecodable() -> None:
    for data in (encoded(part(1))[:900], b"nothing", encoded(Image.new("L", (4000, 2000)))):
        with pytest.raises(Undecodable):
            make_thumbnail(data, None, max_pixels=LIMIT)


def test_the_grey_copy_shows_the_whole_image() -> None:
    image = Image.new("L", (640, 320))
    image.paste(255, (320, 0, 640, 320))
    grey = np.frombuffer(make_thumbnail(encoded(image), None, max_pixels=LIMIT).grey, np.uint8)
    grey = grey.reshape(GREY_SIDE, GREY_SIDE)
    assert grey[:, : GREY_SIDE // 2].max() < 10
    assert grey[:, GREY_SIDE // 2 :].min() > 245


def test_a_part_looks_more_like_its_kind_than_like_another() -> None:
    ring, other_ring = (make_thumbnail(encoded(part(seed)), None, max_pixels=LIMIT).grey for seed in (1, 2))
    scratched = make_thumbnail(encoded(part(3, scratched=True)), None, max_pixels=LIMIT).grey
    noise = make_thumbnail(encoded(Image.effect_noise((96, 64), 60)), None, max_pixels=LIMIT).grey
    alike, marked, unlike = similarities(ring, [other_ring, scratched, noise])
    assert alike > marked > unlike
    assert alike > 0.9


def copies(values: NDArray[np.uint8]) -> bytes:
    return values.astype(np.uint8).tobytes()


def grey_copies() -> st.SearchStrategy[bytes]:
    flat = st.integers(0, 255).map(lambda value: bytes([value]) * GREY_BYTES)
    drawn = st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).integers(0, 256, GREY_BYTES, dtype=np.uint8).tobytes()
    )
    return st.one_of(flat, drawn, st.binary(min_size=GREY_BYTES, max_size=GREY_BYTES))


@given(one=grey_copies(), others=st.lists(grey_copies(), max_size=5))
def test_similarities_are_symmetric_and_from_0_to_1(one: bytes, others: list[bytes]) -> None:
    alike = similarities(one, others)
    assert len(alike) == len(others)
    for value, other in zip(alike, others, strict=True):
        assert 0 <= value <= 1
        assert similarities(other, [one]) == [pytest.approx(value)]
    assert similarities(one, [one]) == [pytest.approx(0 if len(set(one)) == 1 else 1)]


@given(seed=st.integers(0, 1000), gain=st.sampled_from([0.25, 0.5, 1.0]), offset=st.integers(0, 60))
def test_brightness_and_contrast_make_no_difference(seed: int, gain: float, offset: int) -> None:
    values = np.random.default_rng(seed).integers(0, 48, GREY_BYTES) * 4
    other = (values * gain + offset).astype(np.uint8)
    assert similarities(copies(values.astype(np.uint8)), [copies(other)]) == [pytest.approx(1)]
    assert similarities(copies(values.astype(np.uint8)), [copies(255 - other)]) == [0]
