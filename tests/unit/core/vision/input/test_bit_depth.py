"""The bit depth of images: which one they have, how levels are scaled, and that full depth reaches the network."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from core.intake.deep_grey import DeepGrey
from core.intake.image_decoding import decode, decode_stored
from core.models.bit_depths import BIT_DEPTHS, BitDepth
from core.vision.input.bit_depth import DEPTH, decode_visible, depth_evidence, scale, scale_levels, to_image
from core.vision.input.input_checks import measure_image
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import PILLOW, Preprocessing
from tests.fixtures.deep_images import Levels, deep_levels, deep_png, deep_tiff, packed_tiff
from tests.fixtures.part_images import encoded, part, png

LIMIT = 1_000_000

depths = st.sampled_from(BIT_DEPTHS)


def preprocessing(bit_depth: BitDepth | None, *, width: int = 48, height: int = 32) -> Preprocessing:
    return Preprocessing(width=width, height=height, scaled_decode=True, bit_depth=bit_depth)


def prepared(data: bytes, bit_depth: BitDepth | None) -> SizedImage:
    return prepare(data, preprocessing(bit_depth), max_pixels=LIMIT)


def uniform(level: int, *, named_bits: int | None = None) -> DeepGrey:
    return DeepGrey(np.full((2, 2), level, np.uint16), 16, named_bits)


# The scale


@given(depths, st.data())
def test_levels_are_scaled_to_0_to_255_and_stay_different(depth: BitDepth, data: st.DataObject) -> None:
    full = 2**depth - 1
    level = data.draw(st.integers(0, full - 1))
    lowest, low, high, highest = scale_levels(np.array([0, level, level + 1, full], np.uint16), depth)
    assert low.dtype == np.float32
    assert (lowest, highest) == (0, 255)
    assert low < high
    assert low == np.float32(level * 255 / full)


def test_8_bits_are_not_changed() -> None:
    levels = np.arange(256, dtype=np.uint16)
    assert np.array_equal(scale_levels(levels, 8), levels)


# The depth of an image


@pytest.mark.parametrize(
    ("content", "trained", "depth"),
    [
        pytest.param(Image.new("RGB", (2, 2), "white"), 12, 8, id="8 bits"),
        pytest.param(uniform(4095), 12, 12, id="fits"),
        pytest.param(uniform(4096), 12, 14, id="above"),
        pytest.param(uniform(65535), 12, 16, id="far above"),
        pytest.param(uniform(200), 12, 12, id="dark, but the file names no depth"),
        pytest.param(uniform(200), 8, 8, id="8 bits in 16"),
        pytest.param(uniform(256), 8, 10, id="10 bits in 16"),
        pytest.param(uniform(4095), 16, 16, id="the largest depth fits all"),
        pytest.param(uniform(200, named_bits=12), 16, 12, id="named"),
        pytest.param(uniform(200, named_bits=12), 12, 12, id="named, as trained"),
        pytest.param(uniform(200, named_bits=11), 12, 12, id="named, the next depth"),
        pytest.param(uniform(200, named_bits=3), 8, 8, id="named, less than 8"),
        pytest.param(uniform(65520, named_bits=12), 12, 16, id="scaled to 16 bits, as PNG says"),
        pytest.param(uniform(16000, named_bits=12), 16, 16, id="scaled to 16 bits, not bright"),
    ],
)
def test_an_image_has_the_depth_of_its_file_or_else_of_its_levels(
    content: Image.Image | DeepGrey, trained: BitDepth, depth: BitDepth
) -> None:
    assert depth_evidence(content).depth(trained) == depth
    assert scale(content, trained).fits == (depth == trained)


@given(level=st.integers(0, 65535), named=st.none() | st.integers(1, 16), trained=depths)
def test_every_image_is_scaled_within_0_to_255(level: int, named: int | None, trained: BitDepth) -> None:
    content = uniform(level, named_bits=named)
    depth = depth_evidence(content).depth(trained)
    assert depth in BIT_DEPTHS
    assert level <= 2**depth - 1
    image = to_image(scale(content, trained).image)
    assert image.mode == ("RGB" if trained == 8 else "F")
    assert np.abs(np.asarray(image) - level * 255 / (2**depth - 1)).max() <= (0.5 if trained == 8 else 1e-4)


# Prepared images


def test_12_bits_keep_4096_levels() -> None:
    levels = np.full((32, 48), 1000, np.uint16)
    images = [prepared(deep_png(levels + step), 12).pixels for step in range(16)]
    assert all(image.shape == (32, 48, 3) and image.dtype == np.float32 for image in images)
    assert len({float(image[0, 0, 0]) for image in images}) == 16
    levels[7, 11] += 1
    assert not np.array_equal(prepared(deep_png(levels), 12).pixels, images[0])
    # Before, the 16 levels were one: 4095 levels were reduced to 16.
    assert len({int(prepared(deep_png(levels + step), None).pixels[0, 0, 0]) for step in range(16)}) <= 2


def test_all_levels_of_a_image_in_its_size_reach_the_network() -> None:
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    pixels = prepare(deep_png(levels), preprocessing(12, width=64, height=64), max_pixels=LIMIT).pixels
    assert np.array_equal(pixels, np.repeat(scale_levels(levels, 12)[..., np.newaxis], 3, axis=2))
    assert len(np.unique(pixels)) == 4096


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(deep_png, id="png"),
        pytest.param(lambda levels: deep_png(levels, significant_bits=12), id="png-sbit"),
        pytest.param(deep_tiff, id="tiff"),
        pytest.param(lambda levels: deep_tiff(levels, big_endian=True), id="tiff-big-endian"),
        pytest.param(packed_tiff, id="tiff-packed"),
    ],
)
def test_every_container_of_a_image_gives_the_same_pixels(write: Callable[[Levels], bytes]) -> None:
    levels = deep_levels(1)
    image = prepared(write(levels), 12)
    assert np.array_equal(image.pixels, prepared(deep_png(levels), 12).pixels)
    assert (image.width, image.height, image.reasons) == (96, 64, ())


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_deep_image_looks_like_one_of_8_bits(bits: BitDepth) -> None:
    deep = prepared(deep_png(deep_levels(1, bits)), bits)
    eight = prepared(encoded(part(1).convert("L")), 8)
    assert np.abs(deep.pixels - eight.pixels).max() < 1.5
    measured, expected = measure_image(deep), measure_image(eight)
    assert measured.brightness == pytest.approx(expected.brightness, abs=0.5)
    assert measured.sharpness == pytest.approx(expected.sharpness, rel=0.05)
    assert (measured.saturated, measured.dark, measured.colourfulness) == (0, 0, 0)


def test_saturated_and_dark_pixels_of_a_deep_image_are_measured() -> None:
    levels = np.full((32, 48), 2000, np.uint16)
    levels[:8], levels[8:12] = 4095, 0
    measured = measure_image(prepared(deep_png(levels), 12))
    assert (measured.saturated, measured.dark) == pytest.approx((8 / 32, 4 / 32), abs=1 / 32)


@pytest.mark.parametrize(
    ("data", "trained"),
    [
        pytest.param(png(1), 12, id="8 bits, trained on 12"),
        pytest.param(encoded(part(1), "JPEG"), 16, id="a JPEG, trained on 16"),
        pytest.param(deep_png(deep_levels(1)), 8, id="12 bits, trained on 8"),
        pytest.param(deep_png(deep_levels(1)), 10, id="above the depth"),
        pytest.param(deep_png(deep_levels(1), significant_bits=12), 16, id="named 12, trained on 16"),
        pytest.param(packed_tiff(deep_levels(1)), 14, id="packed 12, trained on 14"),
    ],
)
def test_a_image_of_another_depth_gets_the_reason_and_comparable_pixels(data: bytes, trained: BitDepth) -> None:
    image = prepared(data, trained)
    assert image.reasons == (DEPTH,)
    assert image.pixels.dtype == preprocessing(trained).dtype
    assert np.abs(image.pixels - prepared(encoded(part(1).convert("L")), 8).pixels.astype(float)).mean() < 4


# Bundles without a bit depth


@pytest.mark.parametrize("data", [png(1), deep_png(deep_levels(1)), packed_tiff(deep_levels(1))])
def test_without_a_bit_depth_nothing_changes(data: bytes) -> None:
    image = prepared(data, None)
    expected = decode(data, max_pixels=LIMIT).resize((48, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(image.pixels, np.asarray(expected))
    assert image.pixels.dtype == np.uint8
    assert image.reasons == ()


def test_8_bits_are_prepared_as_without_a_bit_depth() -> None:
    assert np.array_equal(prepared(png(1), 8).pixels, prepared(png(1), None).pixels)
    assert prepared(png(1), 8).pixels.dtype == np.uint8


def test_the_digest_without_a_bit_depth_is_that_of_old_bundles() -> None:
    old = "a9b62f32cfbeeb331212a47e7c1582baa452af7a29f130473ea94fcfa087e1b3"
    before = Preprocessing(width=128, height=128, resize=PILLOW, scaled_decode=True, bit_depth=None)
    assert before.digest == old
    assert len({preprocessing(depth).digest for depth in (None, *BIT_DEPTHS)}) == 6


@pytest.mark.parametrize("bit_depth", [9, 0, -8, 32, "12", 12.5, "auto", True])
def test_other_bit_depths_are_refused(bit_depth: object) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"width": 64, "height": 64, "scaled_decode": True, "bit_depth": bit_depth})


# For people


def test_a_image_for_people_is_scaled_like_that_for_the_network() -> None:
    data = deep_png(deep_levels(1))
    visible = decode_visible(data, 12, max_pixels=LIMIT)
    assert (visible.mode, visible.size) == ("RGB", (96, 64))
    assert np.abs(np.asarray(visible, dtype=float) - np.asarray(part(1).convert("RGB"))).mean() < 4
    assert np.asarray(decode_visible(data, None, max_pixels=LIMIT)).max() < 16  # as before
    assert np.array_equal(np.asarray(decode_visible(png(1), 12, max_pixels=LIMIT)), np.asarray(part(1)))


def test_an_image_of_12_bits_in_a_png_of_16_is_visible() -> None:
    """Its levels are 16 times those of 8 bits, and the file names no depth."""
    grey = np.asarray(part(1).convert("L"))
    data = encoded(Image.fromarray(grey.astype(np.uint16) << 4))
    content = decode_stored(data, max_pixels=LIMIT).content
    assert depth_evidence(content).smallest == 12
    visible = np.asarray(decode_visible(data, 12, max_pixels=LIMIT))[..., 0]
    assert np.abs(visible.astype(int) - grey).max() <= 1
