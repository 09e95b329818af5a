"""Alignment: small shifts and turns are found and undone, and what an image does not show is filled in."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from core.vision.input.alignment import Alignment, align, fill_uncovered, find_match
from core.vision.input.geometry import Affine, covered
from core.vision.input.map_placement import place_map
from core.vision.input.part_mask import shrink
from core.vision.input.part_pose import learn_poses
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.input.template import Motion
from core.vision.training.alignment_learning import learn_alignment
from tests.fixtures.posed_parts import encoded_part, random_placement, wedge
from tests.fixtures.still_parts import draw_plate

SIZE = (96, 96)
shifts = st.floats(-0.04, 0.04)
turns = st.floats(-4, 4)


@cache
def learned(size: tuple[int, int] = SIZE) -> Alignment:
    alignment = learn_alignment([draw_plate(seed, size=size) for seed in range(24)], size).alignment
    assert alignment is not None
    return alignment


def moved(right: float, down: float, degrees: float, size: tuple[int, int] = SIZE) -> Affine:
    return Motion(right, down, degrees).affine(*size)


def encoded(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def preprocessing(alignment: Alignment | None = None, size: tuple[int, int] = SIZE) -> Preprocessing:
    return Preprocessing(width=size[0], height=size[1], scaled_decode=False, alignment=alignment)


@given(shifts, shifts, turns, st.integers(100, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_motion_is_found(right: float, down: float, degrees: float, seed: int) -> None:
    image = draw_plate(seed, moved=moved(right, down, degrees))
    found = find_match(image, learned().templates).motion
    assert (found.right, found.down) == pytest.approx((right, down), abs=0.006)
    assert found.degrees == pytest.approx(degrees, abs=0.5)


@given(shifts, shifts, turns)
@settings(max_examples=10, deadline=None)
def test_a_motion_is_found_in_an_image_that_is_not_square(right: float, down: float, degrees: float) -> None:
    size = (160, 80)
    image = draw_plate(7, moved=moved(right, down, degrees, size), size=size)
    aligned = align(image, learned(size).model_copy(update={"smallest_shift": 0.0, "smallest_turn": 0.0}))
    assert aligned is not None
    middle = np.array([[80.0, 40.0], [120.0, 50.0]])
    np.testing.assert_allclose(
        aligned.to_given.apply(middle), moved(right, down, degrees, size).apply(middle), atol=1.2
    )


def test_turns_are_those_of_the_image_as_sent_even_if_the_prepared_one_is_squeezed() -> None:
    """The image of 160 × 80 pixels is prepared as 80 × 80, in which a turn is no turn."""
    size = (160, 80)

    def squeezed(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((80, 80), Image.Resampling.BOX))

    plates = [squeezed(draw_plate(seed, size=size)) for seed in range(16)]
    alignment = learn_alignment(plates, size).alignment
    assert alignment is not None
    aligned = align(squeezed(draw_plate(50, size=size, moved=moved(0.02, -0.03, 3.5, size))), alignment)
    assert aligned is not None
    to_squeezed = Affine.scaling(0.5, 1)
    expected = to_squeezed @ moved(0.02, -0.03, 3.5, size) @ to_squeezed.inverse()
    spread = np.array([[10.0, 10.0], [70.0, 70.0]])
    np.testing.assert_allclose(aligned.to_given.apply(spread), expected.apply(spread), atol=0.8)


@pytest.mark.parametrize("motion", [(0.04, 0, 0), (0, -0.03, 0), (0, 0, 4), (0.03, 0.02, -3), (-0.04, 0.03, 2)])
def test_an_aligned_image_looks_like_one_that_did_not_move(motion: tuple[float, float, float]) -> None:
    still, turned = (draw_plate(3, moved=each) for each in (None, moved(*motion)))
    expected, unaligned, aligned = (
        prepare(encoded(image), preprocessing(alignment), max_pixels=10**6).pixels.astype(int)
        for image, alignment in ((still, learned()), (turned, None), (turned, learned()))
    )
    error = np.abs(aligned - expected).mean()
    assert error < 4  # of which noise is 2.3
    assert error < 0.6 * np.abs(unaligned - expected).mean()


def test_a_motion_that_detectors_tolerate_is_left() -> None:
    image = draw_plate(11, moved=moved(0.004, -0.004, 0.3))
    prepared = prepare(encoded(image), preprocessing(learned()), max_pixels=10**6)
    np.testing.assert_array_equal(prepared.pixels, image)
    assert prepared.reasons == ()


def test_motions_are_rounded_so_that_all_machines_resample_alike() -> None:
    aligned = align(draw_plate(1, moved=moved(0.021, 0.013, 1.03)), learned())
    assert aligned is not None
    turn = np.degrees(np.arctan2(aligned.to_given.yx, aligned.to_given.xx))
    shift = aligned.to_given.apply(np.array([48.0, 48.0])) - 48
    np.testing.assert_allclose(turn * 20, np.round(turn * 20), atol=1e-6)
    np.testing.assert_allclose(shift * 16, np.round(shift * 16), atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        draw_plate(1, moved=moved(0.07, 0, 0)),
        draw_plate(1, moved=moved(0, 0, 6)),
        np.full((96, 96, 3), 128, np.uint8),
        np.zeros((96, 96, 3), np.uint8),
        np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8),
    ],
    ids=["shifted too far", "turned too far", "grey", "black", "noise"],
)
def test_an_image_that_cannot_be_aligned_gets_the_reason_and_keeps_its_pixels(image: np.ndarray) -> None:
    prepared, plain = (prepare(encoded(image), preprocessing(each), max_pixels=10**6) for each in (learned(), None))
    assert prepared.reasons == ("input_pose",)
    np.testing.assert_array_equal(prepared.pixels, plain.pixels)


def test_good_parts_and_parts_with_a_defect_are_aligned() -> None:
    for seed in range(200, 220):
        image = draw_plate(seed, defect=(0.6, 0.5), moved=moved(0.02, 0.01, -1))
        assert prepare(encoded(image), preprocessing(learned()), max_pixels=10**6).reasons == ()


def test_without_an_alignment_nothing_changes() -> None:
    image = draw_plate(1, moved=moved(0.03, 0.01, 2))
    prepared = prepare(encoded(image), preprocessing(), max_pixels=10**6)
    np.testing.assert_array_equal(prepared.pixels, image)
    assert prepared.placed is None
    assert prepared.reasons == ()


def test_a_defect_is_found_on_the_image_as_sent() -> None:
    """The prepared image is half as large; a map of the brightness has its peak on the defect."""
    large = (192, 192)
    motion = moved(-0.03, 0.04, 3, large)
    image = draw_plate(9, size=large, moved=motion, defect=(0.62, 0.5))
    prepared = prepare(encoded(image), preprocessing(learned()), max_pixels=10**6)
    assert prepared.reasons == ()
    placed = place_map(np.maximum(prepared.pixels[:, :, 0].astype(np.float32) - 220, 0), prepared)
    row, column = np.unravel_index(int(placed.argmax()), placed.shape)
    found = (column + 0.5) / placed.shape[1] * 192, (row + 0.5) / placed.shape[0] * 192
    assert found == pytest.approx(tuple(motion.apply(np.array([0.62 * 192, 0.5 * 192]))), abs=6)


def test_a_part_that_was_brought_upright_is_aligned_and_still_found_on_the_image_as_sent() -> None:
    parts = [encoded_part(wedge, seed) for seed in range(16)]
    poses = learn_poses([shrink(Image.open(io.BytesIO(data))) for data in parts])
    assert poses is not None
    upright = Preprocessing(width=128, height=48, scaled_decode=False, upright=poses.upright)
    shown = [prepare(data, upright, max_pixels=10**6).pixels for data in parts]
    alignment = learn_alignment(shown, (128, 48)).alignment
    assert alignment is not None
    always = alignment.model_copy(update={"smallest_shift": 0.0, "smallest_turn": 0.0})
    for seed in range(100, 106):
        data = encoded_part(wedge, seed, defect=(-0.5, 0.0))
        prepared = prepare(data, upright.model_copy(update={"alignment": always}), max_pixels=10**6)
        assert prepared.reasons == ()
        placed = place_map(np.maximum(prepared.pixels[:, :, 0].astype(np.float32) - 225, 0), prepared)
        row, column = np.unravel_index(int(placed.argmax()), placed.shape)
        found = (column + 0.5) / placed.shape[1] * 240, (row + 0.5) / placed.shape[0] * 200
        assert found == pytest.approx(random_placement(seed).to_image(-0.5, 0.0), abs=6)


@pytest.mark.parametrize(("right", "down"), [(6, 0), (-6, 0), (0, 5), (-4, -4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_the_image_does_not_show_is_filled_in(right: int, down: int, dtype: type) -> None:
    image: np.ndarray = draw_plate(4).astype(dtype)
    to_source = Affine.shift(right, down)
    shown = covered(to_source, SIZE, SIZE)
    damaged: np.ndarray = np.where(shown[..., np.newaxis], image, 0).astype(dtype)
    filled = fill_uncovered(damaged, learned(), None, to_source, SIZE)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[shown], image[shown])
    assert np.abs(filled[~shown].astype(float) - image[~shown]).mean() < 4  # of which noise is 2.3


def test_an_edge_of_the_part_that_is_hidden_comes_back() -> None:
    """Plates whose edge is 2 pixels from that of the image, which hides it and 4 more."""

    def plate(seed: int) -> np.ndarray:
        image = draw_plate(seed)
        return image[:, 8:]  # the plate begins at column 9.6

    size = (88, 96)
    alignment = learn_alignment([plate(seed) for seed in range(16)], size).alignment
    assert alignment is not None
    filled = fill_uncovered(plate(30), alignment, 0, Affine.shift(-6, 0), size)
    middle = slice(30, 60)
    assert filled[middle, 0].mean() > 150  # background
    assert filled[middle, 4:6].mean() < 110  # plate


def test_a_colour_is_filled_as_a_colour() -> None:
    image = (draw_plate(4) * np.array([1.0, 0.6, 0.3])).astype(np.uint8)
    filled = fill_uncovered(image, learned(), 0, Affine.shift(0, -5), SIZE)
    assert np.abs(filled[:5].astype(int) - image[:5]).mean() < 4


def test_nothing_is_filled_in_an_image_that_shows_everything_or_nothing() -> None:
    image = draw_plate(4)
    for to_source in (Affine.shift(0, 0), Affine.shift(500, 0)):
        assert fill_uncovered(image, learned(), 0, to_source, SIZE) is image


def test_images_of_more_than_8_bits_keep_their_fractions() -> None:
    alignment = learned()
    levels = draw_plate(5, moved=moved(0.03, 0, 2))[:, :, 0].astype(np.uint16) * 16 + 5
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "TIFF")
    deep = preprocessing(alignment).model_copy(update={"bit_depth": 12})
    prepared = prepare(out.getvalue(), deep, max_pixels=10**6)
    assert prepared.reasons == ()
    assert prepared.pixels.dtype == np.float32
    assert (prepared.pixels != prepared.pixels.round()).mean() > 0.5
    assert prepared.pixels.min() >= 0
    assert prepared.pixels.max() <= 255
    as_8_bits = prepare(encoded(draw_plate(5, moved=moved(0.03, 0, 2))), preprocessing(alignment), max_pixels=10**6)
    assert np.abs(prepared.pixels - as_8_bits.pixels).mean() < 1


def test_threads_get_the_same_images() -> None:
    data = [encoded(draw_plate(seed, moved=moved(0.01 * (seed % 5 - 2), 0.02, seed % 3))) for seed in range(12)]
    fresh = preprocessing(learned().model_copy(update={"smallest_match": 0.01}))  # not yet in any cache
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda each: prepare(each, fresh, max_pixels=10**6), data * 2))
    for one, image in zip(data * 2, together, strict=True):
        np.testing.assert_array_equal(prepare(one, fresh, max_pixels=10**6).pixels, image.pixels)


def test_an_alignment_survives_a_manifest_and_changes_the_digest() -> None:
    recorded = preprocessing(learned())
    again = Preprocessing.model_validate_json(recorded.model_dump_json())
    assert again == recorded
    assert again.digest == recorded.digest
    assert len(recorded.model_dump_json()) < 20_000
    other = preprocessing(learned().model_copy(update={"largest_turn": 3.0}))
    assert len({each.digest for each in (preprocessing(), recorded, other)}) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("references", ()),
        ("references", ("bm90IGEgcG5n",)),
        ("references", ("not base64!",)),
        ("noise", (1.0,)),
        ("noise", (1.0, 0.0)),
        ("largest_shift", 0.2),
        ("largest_turn", -1.0),
        ("smallest_match", 2.0),
    ],
)
def test_a_broken_record_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Alignment.model_validate({**learned().model_dump(), field: value})


def test_references_of_different_sizes_are_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(out, "PNG")
    small = base64.b64encode(out.getvalue()).decode()
    with pytest.raises(ValidationError, match="one size"):
        Alignment.model_validate({**learned().model_dump(), "references": (*learned().references, small)})
