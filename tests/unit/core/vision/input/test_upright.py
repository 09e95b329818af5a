"""Preparing parts in any pose: they are cut out upright, and an image without a good part needs review."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from core.vision.input.part_mask import shrink
from core.vision.input.part_pose import learn_poses
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing, Upright
from core.vision.input.upright import POSE
from tests.fixtures.deep_images import deep_png
from tests.fixtures.part_images import encoded
from tests.fixtures.posed_parts import (
    Placement,
    Shape,
    disc,
    draw_part,
    lined_square,
    random_placement,
    screw,
    wedge,
)

LIMIT = 10**7
SIZES: dict[Shape, tuple[int, int]] = {wedge: (96, 40), screw: (96, 40), lined_square: (64, 64), disc: (64, 64)}


def learn(shape: Shape) -> Upright:
    placements = [random_placement(seed) for seed in range(16)]
    poses = learn_poses([shrink(draw_part(shape, each, seed=seed)) for seed, each in enumerate(placements)])
    assert poses is not None
    return poses.upright


UPRIGHT = {shape: learn(shape) for shape in SIZES}


def preprocessing(shape: Shape, **fields: object) -> Preprocessing:
    width, height = SIZES[shape]
    given = {"width": width, "height": height, "scaled_decode": False, "upright": UPRIGHT[shape], **fields}
    return Preprocessing(**given)  # type: ignore[arg-type]


def prepare_part(shape: Shape, placement: Placement, *, seed: int = 0) -> SizedImage:
    return prepare(encoded(draw_part(shape, placement, seed=seed)), preprocessing(shape), max_pixels=LIMIT)


def mean_difference(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


@pytest.mark.parametrize("shape", [wedge, screw, lined_square])
@settings(max_examples=8)
@given(degrees=st.floats(0, 360), x=st.floats(0.42, 0.58), y=st.floats(0.42, 0.58), seed=st.integers(1, 2000))
def test_a_part_in_any_pose_is_prepared_as_the_part_that_lies_straight(
    shape: Shape, degrees: float, x: float, y: float, seed: int
) -> None:
    straight = prepare_part(shape, Placement())
    turned = prepare_part(shape, Placement(degrees, x, y), seed=seed)
    assert (turned.width, turned.height) == (240, 200)
    assert turned.reasons == straight.reasons == ()
    assert turned.pixels.shape == straight.pixels.shape == (SIZES[shape][1], SIZES[shape][0], 3)
    assert turned.pixels.dtype == np.uint8
    difference = mean_difference(turned.pixels, straight.pixels)
    assert difference < 9  # grey levels, of noise, edges and the light, which is not turned
    assert mean_difference(turned.pixels[::-1, ::-1], straight.pixels) > difference + 2


def test_a_part_that_lies_straight_is_only_cut_out() -> None:
    straight = prepare_part(wedge, Placement())
    shown = UPRIGHT[wedge].crop((240, 200))
    left, top = (240 - shown[0]) / 2, (200 - shown[1]) / 2
    image = draw_part(wedge, Placement())
    expected = image.resize(SIZES[wedge], Image.Resampling.BILINEAR, box=(left, top, left + shown[0], top + shown[1]))
    assert mean_difference(straight.pixels, np.asarray(expected)) < 6


def test_a_disc_is_cut_out_but_not_turned() -> None:
    first, moved = (prepare_part(disc, Placement(40, x, 0.5)) for x in (0.44, 0.56))
    assert mean_difference(first.pixels, moved.pixels) < 6
    turned = prepare_part(disc, Placement(130))
    assert turned.reasons == ()
    assert mean_difference(np.rot90(turned.pixels), first.pixels) < 6
    assert turned.placed is not None
    assert (turned.placed.xy, turned.placed.yx) == (0, 0)


@settings(max_examples=15)
@given(degrees=st.floats(0, 360), u=st.floats(-0.9, 0.9), v=st.floats(-0.1, 0.1))
def test_a_prepared_pixel_is_mapped_to_the_place_in_the_image_that_it_shows(degrees: float, u: float, v: float) -> None:
    """`placed` maps points between a part as prepared and as sent: here between two images of it."""
    straight, turned = (
        (placement, prepare_part(wedge, placement).placed)
        for placement in (Placement(), Placement(degrees, 0.55, 0.45))
    )
    assert straight[1] is not None
    assert turned[1] is not None
    on_prepared = straight[1].inverse().apply(np.array(straight[0].to_image(u, v)))
    expected = turned[0].to_image(u, v)
    assert np.hypot(*(turned[1].apply(on_prepared) - expected)) < 3  # pixels of 240 × 200


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("RGB", (240, 200), (200, 200, 200)), id="empty"),
        pytest.param(Image.new("RGB", (240, 200)), id="black"),
        pytest.param(draw_part(wedge, Placement(0, x=0.85)), id="cut-off"),
        pytest.param(draw_part(wedge, Placement(20, scale=30)), id="half-the-size"),
        pytest.param(
            draw_part(wedge, Placement(20, scale=120, size=(480, 400))).crop((120, 100, 360, 300)), id="twice"
        ),
        pytest.param(draw_part(lined_square, Placement()), id="another-part"),
        pytest.param(Image.effect_noise((240, 200), 60).convert("RGB"), id="noise"),
        pytest.param(Image.new("RGB", (1, 1)), id="one-pixel"),
        pytest.param(Image.new("RGB", (1, 3000), (200, 200, 200)), id="very-high"),
        pytest.param(Image.new("RGB", (3000, 3), (200, 200, 200)), id="very-wide"),
    ],
)
def test_an_image_without_a_good_part_is_prepared_and_needs_review(image: Image.Image) -> None:
    prepared = prepare(encoded(image), preprocessing(wedge), max_pixels=LIMIT)
    assert prepared.reasons == (POSE,)
    assert prepared.pixels.shape == (40, 96, 3)
    assert (prepared.width, prepared.height) == image.size


def test_the_middle_of_an_empty_image_is_cut_out_as_it_lies() -> None:
    pixels = np.full((200, 240, 3), 200, np.uint8)
    pixels[90:110, :, 0] = np.linspace(196, 204, 240)  # hardly visible, so it is no part
    prepared = prepare(encoded(Image.fromarray(pixels)), preprocessing(wedge), max_pixels=LIMIT)
    assert prepared.reasons == (POSE,)
    assert prepared.placed is not None
    centre = prepared.placed.apply(np.array([48.0, 20.0]))
    np.testing.assert_allclose(centre, (120, 100))
    assert np.ptp(prepared.pixels[20, :, 0]) > 2
    assert np.ptp(prepared.pixels[20, :, 1]) == 0


def test_the_same_bytes_are_always_prepared_alike() -> None:
    first, second = (prepare_part(screw, random_placement(4)) for _ in range(2))
    assert first.pixels.tobytes() == second.pixels.tobytes()
    assert first.placed == second.placed


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_grey_is_brought_upright_with_all_its_levels(bits: int) -> None:
    random = np.random.default_rng(3)
    grey = np.asarray(draw_part(wedge, Placement(65)).convert("L"), dtype=float) + random.uniform(0, 1, (200, 240))
    levels = (grey * ((1 << bits) - 1) / 256).astype(np.uint16)
    deep = preprocessing(wedge, bit_depth=bits)
    prepared = prepare(deep_png(levels, significant_bits=bits), deep, max_pixels=LIMIT)
    assert prepared.reasons == ()
    assert prepared.pixels.dtype == np.float32
    assert prepared.pixels.min() >= 0
    assert prepared.pixels.max() <= 255
    assert len(np.unique(prepared.pixels)) > 1000
    assert (prepared.pixels == prepared.pixels[:, :, :1]).all()
    shallow = prepare(encoded(Image.fromarray(grey.astype(np.uint8))), preprocessing(wedge), max_pixels=LIMIT)
    assert mean_difference(prepared.pixels, shallow.pixels) < 2


def test_interpolation_stays_within_the_range_of_grey_levels() -> None:
    black_on_white = draw_part(wedge, Placement(33)).convert("L").point(lambda level: 255 * (level > 150))
    levels = np.asarray(black_on_white, dtype=np.uint16) * 257
    prepared = prepare(deep_png(levels, significant_bits=16), preprocessing(wedge, bit_depth=16), max_pixels=LIMIT)
    assert (prepared.pixels.min(), prepared.pixels.max()) == (0, 255)


def large_jpeg(placement: Placement, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(draw_part(wedge, placement), "JPEG", quality=92, exif=exif)


@pytest.mark.parametrize("size", [(1200, 1000), (1901, 997)])
def test_a_reduced_decode_keeps_the_pose_and_the_place_in_the_original(size: tuple[int, int]) -> None:
    data = large_jpeg(Placement(20, 0.47, 0.55, scale=0.274 * np.sqrt(size[0] * size[1]), size=size))
    whole, reduced = (
        prepare(data, preprocessing(wedge, scaled_decode=scaled), max_pixels=LIMIT) for scaled in (False, True)
    )
    assert whole.reasons == reduced.reasons == ()
    assert (reduced.width, reduced.height) == size
    assert mean_difference(whole.pixels, reduced.pixels) < 4
    assert not np.array_equal(whole.pixels, reduced.pixels)  # otherwise this test would be meaningless
    assert whole.placed is not None
    assert reduced.placed is not None
    corners = np.array([(0.0, 0.0), (96.0, 0.0), (96.0, 40.0), (0.0, 40.0)])
    apart = np.hypot(*(whole.placed.apply(corners) - reduced.placed.apply(corners)).T)
    assert apart.max() < 0.01 * max(size)


def test_a_reduced_decode_leaves_twice_the_pixels_that_are_shown() -> None:
    for shape in SIZES:
        decoded = preprocessing(shape, scaled_decode=True).decoded_size
        assert decoded is not None
        shown = UPRIGHT[shape].crop(decoded)
        assert min(side / prepared for side, prepared in zip(shown, SIZES[shape], strict=True)) >= 2
        assert preprocessing(shape).decoded_size is None


def test_the_orientation_of_a_photo_is_applied_first() -> None:
    placement = Placement(20, 0.45, 0.52, scale=300, size=(1200, 1000))
    displayed = draw_part(wedge, placement)
    expected = prepare(encoded(displayed), preprocessing(wedge), max_pixels=LIMIT)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    stored = ImageOps.exif_transpose(displayed.transpose(Image.Transpose.ROTATE_90))
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    prepared = prepare(file.getvalue(), preprocessing(wedge), max_pixels=LIMIT)
    assert (prepared.width, prepared.height) == (1200, 1000)
    assert prepared.placed == expected.placed
    np.testing.assert_array_equal(prepared.pixels, expected.pixels)
