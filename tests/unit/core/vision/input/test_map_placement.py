"""Anomaly maps lie on the image as sent: a defect has its peak there, whatever the pose of the part."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.vision.evaluation.heatmap import scale_to_threshold
from core.vision.input.geometry import Affine
from core.vision.input.map_placement import place_map
from core.vision.input.part_mask import shrink
from core.vision.input.part_pose import learn_poses
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from tests.fixtures.part_images import encoded
from tests.fixtures.posed_parts import Placement, draw_part, random_placement, wedge

maps = arrays(np.float32, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.floats(0, 1e4, width=32))
turned = st.builds(
    lambda degrees, scale, x, y: Affine.shift(x, y) @ Affine.turn(degrees) @ Affine.scaling(scale, scale),
    st.floats(0, 360),
    st.floats(0.05, 20),
    st.floats(-50, 300),
    st.floats(-50, 300),
)
sizes = st.integers(1, 400)


def placed(to_image: Affine | None, width: int, height: int) -> SizedImage:
    return SizedImage(np.zeros((48, 96, 3), np.uint8), width, height, placed=to_image)


@given(maps, turned, sizes, sizes)
def test_the_highest_value_is_kept_and_no_higher_or_lower_one_arises(
    anomaly_map: np.ndarray, to_image: Affine, width: int, height: int
) -> None:
    result = place_map(anomaly_map, placed(to_image, width, height))
    assert result.dtype == np.float32
    assert result.max() == anomaly_map.max()
    assert result.min() >= 0
    assert max(result.shape) <= 1024


def test_the_map_of_a_whole_image_is_returned_as_it_is() -> None:
    anomaly_map = np.random.default_rng(0).random((8, 12), dtype=np.float32)
    assert place_map(anomaly_map, placed(None, 500, 300)) is anomaly_map


def test_a_map_that_only_covers_a_part_of_the_image_is_0_elsewhere() -> None:
    """The prepared image of 96 × 48 pixels shows columns 101 to 197 and rows 50 to 98 of 400 × 200."""
    anomaly_map = np.arange(1, 73, dtype=np.float32).reshape(6, 12)
    result = place_map(anomaly_map, placed(Affine.shift(101, 50), 400, 200))
    assert result.shape == (25, 50)  # cells of 8 pixels, as before
    centres = (np.arange(50) + 0.5) * 8, (np.arange(25) + 0.5) * 8
    shown = (np.abs(centres[1] - 74) < 24)[:, None] & (np.abs(centres[0] - 149) < 48)
    assert (result[~shown] == 0).all()
    assert (result[shown] > 0).all()
    assert result[shown].min() >= anomaly_map.min()


def test_an_exact_quarter_turn_moves_the_cells() -> None:
    anomaly_map = np.random.default_rng(1).random((6, 12), dtype=np.float32)
    quarter = Affine.shift(48, 0) @ Affine.turn(90)
    np.testing.assert_allclose(place_map(anomaly_map, placed(quarter, 48, 96)), np.rot90(anomaly_map, -1), rtol=1e-5)


def test_a_large_image_has_a_map_of_limited_size() -> None:
    anomaly_map = np.zeros((48, 96), dtype=np.float32)
    anomaly_map[10, 20] = 3
    result = place_map(anomaly_map, placed(Affine.shift(7000, 2000), 9000, 4000))
    assert result.shape == (455, 1024)
    row, column = np.unravel_index(result.argmax(), result.shape)
    assert (column / 1024 * 9000, row / 455 * 4000) == pytest.approx((7020.5, 2010.5), abs=9)


@pytest.fixture(scope="module")
def upright() -> Preprocessing:
    placements = [random_placement(seed) for seed in range(16)]
    poses = learn_poses([shrink(draw_part(wedge, each, seed=seed)) for seed, each in enumerate(placements)])
    assert poses is not None
    return Preprocessing(width=128, height=48, scaled_decode=False, upright=poses.upright)


@settings(max_examples=25)
@given(
    degrees=st.floats(0, 360),
    x=st.floats(0.42, 0.58),
    y=st.floats(0.42, 0.58),
    defect=st.tuples(st.floats(-0.8, 0.8), st.floats(-0.1, 0.1)),
)
def test_a_defect_that_is_drawn_on_the_image_has_its_peak_there(
    upright: Preprocessing, degrees: float, x: float, y: float, defect: tuple[float, float]
) -> None:
    placement = Placement(degrees, x, y)
    prepared = prepare(encoded(draw_part(wedge, placement, defect=defect)), upright, max_pixels=10**6)
    assert prepared.reasons == ()
    # Bright cells of 4 pixels in the middle of the part, whose own levels are below 135.
    bright = prepared.pixels[10:-10, 8:-8].astype(np.float32).mean(axis=2)
    anomaly_map = np.zeros((12, 32), dtype=np.float32)
    anomaly_map[2:10, 2:30] = np.pad(bright, ((2, 2), (0, 0)), mode="edge").reshape(8, 4, 28, 4).mean(axis=(1, 3))
    anomaly_map = np.maximum(anomaly_map - 140, 0)
    anomaly_map[:3] = anomaly_map[9:] = 0  # beside the part
    result = place_map(anomaly_map, prepared)
    row, column = np.unravel_index(result.argmax(), result.shape)
    peak = (column + 0.5) / result.shape[1] * 240, (row + 0.5) / result.shape[0] * 200
    assert np.hypot(*np.subtract(peak, placement.to_image(*defect))) < 8  # pixels of 240 × 200


def test_the_heat_of_a_map_does_not_depend_on_how_much_of_the_image_the_part_covers() -> None:
    """Otherwise most of a small part would be as hot as its defect."""
    anomaly_map = np.random.default_rng(2).random((24, 24), dtype=np.float32)
    anomaly_map[5, 7] = 9
    small = SizedImage(np.zeros((96, 96, 3), np.uint8), 1000, 1000, placed=Affine.shift(400, 300))
    heat = scale_to_threshold(place_map(anomaly_map, small), 2.0, 1.0)
    expected = scale_to_threshold(anomaly_map, 2.0, 1.0)
    np.testing.assert_allclose(heat[75:99, 100:124], expected, rtol=0.02, atol=0.02)
    assert (heat >= 1).sum() == (expected >= 1).sum()
