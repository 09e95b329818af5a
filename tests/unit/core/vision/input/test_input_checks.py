"""Input checks mark images that were taken wrongly, and do not mark new good parts."""

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import ValidationError

from core.vision.input.input_checks import (
    ImageMeasurements,
    InputRanges,
    failed_checks,
    learn_input_ranges,
    measure_image,
)
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from tests.fixtures.part_images import encoded
from tests.fixtures.training_parts import make_part

PREPROCESSING = Preprocessing(width=64, height=64, scaled_decode=True)
SIDE = 128


def measure(image: Image.Image) -> ImageMeasurements:
    return measure_image(prepare(encoded(image), PREPROCESSING, max_pixels=10**6))


@cache
def part(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(make_part(seed, side=SIDE))).convert("RGB")


@cache
def measure_part(seed: int) -> ImageMeasurements:
    return measure(part(seed))


def toned(image: Image.Image, tone: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Image.Image:
    return Image.fromarray(tone(np.asarray(image).astype(np.float64)).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def expected() -> InputRanges:
    return learn_input_ranges([measure_part(seed) for seed in range(20)])


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        pytest.param(lambda image: toned(image, lambda grey: 2 * grey), ["input_saturated", "input_bright"], id="×2"),
        pytest.param(lambda image: toned(image, lambda grey: 1.4 * grey), ["input_bright"], id="×1.4"),
        pytest.param(lambda image: toned(image, lambda grey: 0.5 * grey), ["input_dark"], id="×0.5"),
        pytest.param(lambda image: toned(image, lambda grey: 0 * grey), ["input_dark"], id="black"),
        pytest.param(lambda image: toned(image, lambda grey: 0 * grey + 3), ["input_dark"], id="almost black"),
        pytest.param(lambda image: toned(image, lambda grey: 0 * grey + 140), ["input_blurred"], id="blank"),
        pytest.param(lambda image: image.filter(ImageFilter.GaussianBlur(8)), ["input_blurred"], id="blur"),
        pytest.param(lambda image: image.resize((SIDE, SIDE // 2)), ["input_size"], id="squashed"),
        pytest.param(lambda image: image.crop((0, 0, SIDE - 16, SIDE)), ["input_size"], id="cropped"),
        pytest.param(lambda image: image.resize((48, 48)), ["input_size"], id="small"),
        pytest.param(lambda image: toned(image, lambda grey: grey * [1.25, 1, 0.7]), ["input_colour"], id="tinted"),
    ],
)  # fmt: skip
def test_a_wrongly_taken_image_fails_a_check(
    expected: InputRanges, change: Callable[[Image.Image], Image.Image], failed: list[str]
) -> None:
    assert failed_checks(measure(change(part(100))), expected) == failed


@pytest.mark.parametrize("count", [1, 2, 20, 60])
def test_new_good_parts_pass_every_check(count: int) -> None:
    learned = learn_input_ranges([measure_part(seed) for seed in range(count)])
    assert learned.sample_size == count
    assert [failed_checks(measure_part(seed), learned) for seed in range(160, 220)] == [[]] * 60


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda image: toned(image, lambda grey: 0.9 * grey), id="×0.9"),
        pytest.param(lambda image: toned(image, lambda grey: 1.1 * grey), id="×1.1"),
        pytest.param(lambda image: toned(image, lambda grey: grey + 8), id="+8"),
        pytest.param(lambda image: image.resize((SIDE // 2, SIDE // 2)), id="half the size"),
        pytest.param(lambda image: image.resize((4 * SIDE, 4 * SIDE)), id="four times the size"),
        pytest.param(lambda image: image.convert("L"), id="stored as grey"),
    ],
)
def test_changes_that_a_detector_should_tolerate_pass_every_check(
    expected: InputRanges, change: Callable[[Image.Image], Image.Image]
) -> None:
    assert failed_checks(measure(change(part(100))), expected) == []


def test_a_defect_passes_every_check(expected: InputRanges) -> None:
    for seed in range(300, 320):
        scratched = Image.open(io.BytesIO(make_part(seed, side=SIDE, defective=True))).convert("RGB")
        assert failed_checks(measure(scratched), expected) == []


def test_one_outlier_among_many_does_not_widen_the_ranges() -> None:
    black = toned(part(0), lambda grey: 0 * grey)
    learned = learn_input_ranges([measure_part(seed) for seed in range(220)] + [measure(black)])
    assert failed_checks(measure(black), learned) == ["input_dark"]


def test_a_grey_image_fails_where_colour_is_expected() -> None:
    def coloured(seed: int) -> Image.Image:
        return toned(part(seed), lambda pixels: pixels * [1.2, 0.8, 0.6])

    learned = learn_input_ranges([measure(coloured(seed)) for seed in range(20)])
    assert failed_checks(measure(coloured(30)), learned) == []
    assert failed_checks(measure(coloured(30).convert("L")), learned) == ["input_colour"]


def test_measurements_of_a_known_image() -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, 4:] = (255, 51, 51)
    measurements = measure_image(SizedImage(pixels, width=16, height=4))
    assert (measurements.aspect, measurements.enlargement, measurements.saturated, measurements.dark) == (
        4,
        2,
        0.5,
        0.5,
    )
    assert measurements.brightness == pytest.approx(112 / 2, abs=0.5)  # 0.299 · 255 + 0.701 · 51
    assert measurements.contrast == pytest.approx(112 / 2, abs=0.5)
    assert measurements.colourfulness == pytest.approx(0.8)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_sharpness_does_not_follow_the_light(gain: float) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(40, 100, (64, 64, 1)).repeat(3, axis=2)
    plain, brighter = (measure_image(SizedImage(each.astype(np.uint8), 64, 64)) for each in (pixels, pixels * gain))
    assert brighter.sharpness == pytest.approx(plain.sharpness, rel=0.02)
    assert plain.sharpness == pytest.approx(5, rel=0.1)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=12), st.integers(0, 255))
def test_the_median_of_any_training_set_passes_the_learned_ranges(greys: list[int], other: int) -> None:
    def flat(grey: int) -> ImageMeasurements:
        return measure_image(SizedImage(np.full((16, 16, 3), grey, dtype=np.uint8), 16, 16))

    learned = learn_input_ranges([flat(grey) for grey in greys])
    assert InputRanges.model_validate_json(learned.model_dump_json()) == learned
    assert failed_checks(flat(sorted(greys)[len(greys) // 2]), learned) == []
    assert set(failed_checks(flat(other), learned)) <= {"input_saturated", "input_dark", "input_bright"}


def test_contrast_has_a_range_but_no_check(expected: InputRanges) -> None:
    assert expected.contrast is not None
    low, high = expected.contrast
    assert all(low < measure_part(seed).contrast < high for seed in range(100, 120))
    faint = toned(part(100), lambda grey: grey.mean() + (grey - grey.mean()) / 4)
    assert measure(faint).contrast < low
    assert failed_checks(measure(faint), expected) == []


@pytest.mark.parametrize("grey", [0, 3, 140, 255])
def test_a_flat_image_has_no_contrast(grey: int) -> None:
    assert measure_image(SizedImage(np.full((64, 64, 3), grey, dtype=np.uint8), 64, 64)).contrast < 0.01


def test_ranges_need_at_least_one_image() -> None:
    with pytest.raises(ValueError, match="need at least one image"):
        learn_input_ranges([])


def test_a_range_in_the_wrong_order_is_refused(expected: InputRanges) -> None:
    with pytest.raises(ValidationError, match="ends before it begins"):
        InputRanges.model_validate({**expected.model_dump(), "brightness": (2.0, 1.0)})
