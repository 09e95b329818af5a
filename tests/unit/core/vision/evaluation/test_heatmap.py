"""Heat is in units of the threshold, and heatmaps match the verdict: good parts are hardly tinted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from api.routes import page
from core.vision.evaluation import heatmap
from core.vision.evaluation.heatmap import legend, overlay, resize_map, scale_to_threshold

maps = arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.floats(0, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, -1.0]),
)
scores = st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1e-300, 1.0, 0.9999999999, 1e300])


def plain(grey: int, size: tuple[int, int] = (120, 80)) -> Image.Image:
    return Image.new("RGB", size, (grey, grey, grey))


def spot(rows: int = 8, columns: int = 12, at: tuple[int, int] = (2, 3)) -> np.ndarray:
    values = np.zeros((rows, columns), dtype=np.float32)
    values[at] = 5
    return values


@given(maps, scores, scores)
def test_heat_reaches_1_exactly_where_the_score_reaches_the_threshold(
    anomaly_map: np.ndarray,
    score: float,
    threshold: float,
) -> None:
    heat = scale_to_threshold(anomaly_map, score, threshold)
    assert heat.dtype == np.float32
    assert heat.shape == anomaly_map.shape
    assert np.isfinite(heat).all()
    assert heat.min() >= 0
    assert (heat.max() >= 1) == (score >= threshold)


def test_the_peak_of_the_heat_equals_the_score() -> None:
    anomaly_map = np.linspace(0, 2, 100, dtype=np.float32).reshape(10, 10)
    peak = anomaly_map.ravel()[-2:].mean()  # 2 % of a hundred cells
    heat = scale_to_threshold(anomaly_map, score=0.6, threshold=0.4)
    np.testing.assert_allclose(heat, np.minimum(anomaly_map / peak, 1) * 1.5, rtol=1e-5)


def test_heat_stays_below_1_for_a_score_just_below_the_threshold() -> None:
    assert scale_to_threshold(spot(), score=np.nextafter(0.3, 0), threshold=0.3).max() < 1
    assert scale_to_threshold(spot(), score=0.3, threshold=0.3).max() == 1


@pytest.mark.parametrize(
    ("anomaly_map", "expected"),
    [
        pytest.param([[0, 0], [0, 0]], [[2, 2], [2, 2]], id="nothing"),
        pytest.param([[np.nan, 1], [0.5, 0]], [[0, 2], [1, 0]], id="nan"),
        pytest.param([[np.inf, 1], [0.5, 0]], [[2, 0], [0, 0]], id="infinite"),
    ],
)
def test_unusual_maps(anomaly_map: list[list[float]], expected: list[list[float]]) -> None:
    np.testing.assert_allclose(scale_to_threshold(np.array(anomaly_map), 2, 1), expected, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_without_a_ratio_to_the_threshold_only_the_side_counts(threshold: float) -> None:
    assert scale_to_threshold(spot(), threshold, threshold).max() == 1
    assert scale_to_threshold(spot(), threshold - 1, threshold).max() == 0


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_not_finite_has_no_heat(score: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        scale_to_threshold(spot(), score, 1)


@pytest.mark.parametrize("shape", [(0, 3), (3,), (1, 2, 3)])
def test_an_invalid_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rows and columns"):
        scale_to_threshold(np.zeros(shape), 1, 1)


def test_the_map_is_aligned_with_the_image_as_in_pillow() -> None:
    """Column c of a grid enlarged 8 times is centred between pixels 8c + 3 and 8c + 4."""
    resized = resize_map(spot(), (96, 64))
    rows, columns = np.nonzero(resized > 0.9 * resized.max())
    assert (rows.mean(), columns.mean()) == (2 * 8 + 3.5, 3 * 8 + 3.5)
    ramp = np.arange(4, dtype=np.float32)[None] + 1
    np.testing.assert_allclose(resize_map(ramp, (8, 1))[0], [1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4], rtol=1e-6)


@pytest.mark.parametrize("size", [(96, 64), (97, 61), (7, 5), (1, 1), (12, 8)])
def test_the_peak_survives_any_size(size: tuple[int, int]) -> None:
    calm = np.full((8, 12), np.nextafter(np.float32(1), np.float32(0)))
    assert resize_map(spot(), size).shape == size[::-1]
    assert resize_map(spot(), size).max() == 5
    assert resize_map(calm, size).max() < 1


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_heat_below_half_the_threshold_is_not_drawn(ground: int) -> None:
    image = plain(ground)
    drawn = overlay(image, scale_to_threshold(spot(), 0.49, 1))
    assert drawn.tobytes() == image.tobytes()
    assert drawn is not image


@pytest.mark.parametrize("ground", [0, 90, 255])
def test_heat_is_a_tint_below_the_threshold_and_has_a_contour_at_it(ground: int) -> None:
    image = plain(ground)
    calm, hot = (np.asarray(overlay(image, scale_to_threshold(spot(), score, 1))).astype(int) for score in (0.999, 1.3))
    tinted = np.abs(calm - ground).sum(axis=2) > 0
    assert 0 < tinted.mean() < 0.1
    assert (calm[tinted][:, 2] >= calm[tinted][:, 0]).all()  # cool
    peak = (25, 35)  # of a spot at row 2 of 8 and column 3 of 12
    assert np.abs(hot[peak] - calm[peak]).max() > 60
    assert hot[peak][0] > hot[peak][2]  # hot
    for line in (0, 255):
        assert (hot == line).all(axis=2).any()


def test_heat_saturates_at_three_times_the_threshold() -> None:
    three, nine = (np.asarray(overlay(plain(90), np.full((2, 2), value, dtype=np.float32))) for value in (3, 9))
    np.testing.assert_array_equal(three, nine)


def test_the_scale_is_readable_without_colours() -> None:
    scale = np.asarray(legend(600, 4).convert("L")).astype(int)[0]
    hot = scale[201:]
    assert (np.diff(hot) >= -1).all()
    assert hot[-1] - hot[0] > 120
    assert (scale[:100] == 128).all()


def test_the_page_explains_the_same_scale() -> None:
    with Image.open(Path(page.__file__).parents[1] / "page" / "heat-scale.png") as shown:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.asarray(legend(*shown.size).convert("RGB")))


def test_large_images_are_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heatmap, "LONGEST_SIDE", 60)
    assert overlay(plain(90, (120, 50)), scale_to_threshold(spot(), 2, 1)).size == (60, 25)
    assert overlay(plain(90, (3, 1200)), scale_to_threshold(spot(), 2, 1)).size == (1, 60)
    assert overlay(plain(90, (60, 60)), scale_to_threshold(spot(), 2, 1)).size == (60, 60)
