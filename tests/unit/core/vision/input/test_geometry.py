"""Affine maps compose and invert, and images are resampled where the maps say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from core.vision.input.geometry import IDENTITY, Affine, corners, covered, resample

lengths = st.floats(-500, 500)
affines = st.builds(
    lambda degrees, x_scale, y_scale, x, y, other: (
        Affine.shift(x, y) @ Affine.turn(degrees) @ Affine.scaling(x_scale, y_scale) @ Affine.turn(other)
    ),
    st.floats(-720, 720),
    st.floats(0.05, 20),
    st.floats(0.05, 20),
    lengths,
    lengths,
    st.floats(-720, 720),
)
points = arrays(np.float64, st.tuples(st.integers(1, 6), st.just(2)), elements=lengths)
images = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))


@given(affines, points)
def test_the_inverse_maps_points_back(affine: Affine, of: np.ndarray) -> None:
    np.testing.assert_allclose(affine.inverse().apply(affine.apply(of)), of, atol=1e-6)
    np.testing.assert_allclose((affine @ affine.inverse()).coefficients, IDENTITY.coefficients, atol=1e-6)


@given(affines, affines, points)
def test_a_product_applies_the_second_map_first(outer: Affine, inner: Affine, of: np.ndarray) -> None:
    np.testing.assert_allclose((outer @ inner).apply(of), outer.apply(inner.apply(of)), rtol=1e-9, atol=1e-6)


@given(st.floats(-720, 720), lengths, lengths)
def test_a_turn_about_a_point_keeps_it(degrees: float, x: float, y: float) -> None:
    point = np.array([x, y])
    np.testing.assert_allclose(Affine.turn(degrees).about(x, y).apply(point), point, atol=1e-9)


def test_a_turn_is_clockwise_as_displayed() -> None:
    np.testing.assert_allclose(Affine.turn(90).apply(np.array([1.0, 0.0])), [0, 1], atol=1e-12)


def test_a_map_without_an_area_has_no_inverse() -> None:
    with pytest.raises(ValueError, match="no inverse"):
        Affine.scaling(1, 0).inverse()


@given(images)
def test_the_identity_keeps_every_pixel(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(np.asarray(resample(image, IDENTITY, image.size)), pixels)


@given(images, st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 20), st.integers(1, 20))
def test_whole_shifts_show_the_pixels_and_repeat_the_edge(
    pixels: np.ndarray, right: int, down: int, width: int, height: int
) -> None:
    shown = np.asarray(resample(Image.fromarray(pixels), Affine.shift(right, down), (width, height)))
    rows = np.clip(np.arange(height) + down, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(width) + right, 0, pixels.shape[1] - 1)
    np.testing.assert_array_equal(shown, pixels[rows][:, columns])


@given(images, affines)
def test_any_map_can_be_resampled(pixels: np.ndarray, affine: Affine) -> None:
    image = Image.fromarray(pixels)
    shown = np.asarray(resample(image, affine, (5, 4), Image.Resampling.BILINEAR))
    assert shown.shape == (4, 5, 3)
    assert (shown >= pixels.min(axis=(0, 1))).all()
    assert (shown <= pixels.max(axis=(0, 1))).all()


def test_a_turned_spot_is_where_the_map_says() -> None:
    pixels = np.zeros((60, 80), np.float32)
    pixels[19:22, 59:62] = 100  # around (60.5, 20.5)
    to_image = Affine.turn(30).about(40, 30) @ Affine.shift(4, -3)
    shown = np.asarray(resample(Image.fromarray(pixels), to_image, (80, 60)))
    row, column = np.unravel_index(int(shown.argmax()), shown.shape)
    x, y = to_image.inverse().apply(np.array([60.5, 20.5]))
    assert (column + 0.5, row + 0.5) == pytest.approx((x, y), abs=1)


@given(affines, st.integers(1, 9), st.integers(1, 9))
def test_covered_pixels_are_those_whose_middle_is_in_the_image(affine: Affine, width: int, height: int) -> None:
    is_covered = covered(affine, (7, 6), (width, height))
    y, x = np.mgrid[:6, :7] + 0.5
    column, row = np.moveaxis(affine.apply(np.stack([x, y], axis=-1)), -1, 0)
    certain = np.minimum(np.abs(column * (width - column)), np.abs(row * (height - row))) > 1e-6
    expected = (column > 0) & (column < width) & (row > 0) & (row < height)
    np.testing.assert_array_equal(is_covered[certain], expected[certain])


def test_corners_go_around_the_image() -> None:
    np.testing.assert_array_equal(corners(3, 2), [(0, 0), (3, 0), (3, 2), (0, 2)])
