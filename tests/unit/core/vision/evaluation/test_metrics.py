"""The AUROC by its definition, and the trivial scores used as controls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.evaluation.metrics import auroc, auroc_interval, controls, partial_auroc
from core.vision.input.thumbnails import make_thumbnails

scores = st.lists(st.integers(0, 8).map(float), min_size=1, max_size=30).map(np.array)


@given(scores, scores)
def test_the_auroc_is_the_share_of_ordered_pairs_with_ties_as_halves(
    good: np.ndarray[tuple[int], np.dtype[np.float64]], defective: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    pairs = np.sign(defective[:, None] - good[None, :]) / 2 + 0.5
    assert auroc(good, defective) == pytest.approx(pairs.mean())


def test_an_empty_class_is_refused() -> None:
    with pytest.raises(ValueError, match="needs scores"):
        auroc(np.array([]), np.array([1.0]))


def test_the_interval_contains_the_value_and_narrows() -> None:
    random = np.random.default_rng(1)
    widths = []
    for size in (20, 200):
        good, defective = random.normal(0, 1, size), random.normal(1, 1, size)
        low, high = auroc_interval(good, defective, resamples=200)
        assert low <= auroc(good, defective) <= high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_the_controls_rank_by_what_they_are_named_after() -> None:
    random = np.random.default_rng(0)
    references = [random.integers(118, 138, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    dark, same, bright = np.full((32, 32, 3), 20, np.uint8), references[0], np.full((32, 32, 3), 240, np.uint8)
    images = [dark, same, bright]
    aurocs = controls(
        make_thumbnails(images),
        np.array([image.std(dtype=np.float64) for image in images]),
        make_thumbnails(references),
    )
    assert aurocs["mean_brightness"][0] > aurocs["mean_brightness"][1] > aurocs["mean_brightness"][2]
    assert aurocs["mean_brightness_deviation"].argmin() == 1
    assert aurocs["standard_deviation"].argmax() == 1
    assert aurocs["nearest_thumbnail"][1] == pytest.approx(0, abs=1e-3)
    assert aurocs["nearest_thumbnail"][0] == pytest.approx(108, abs=3)


@given(st.lists(st.integers(0, 50), min_size=10, max_size=60), st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_the_partial_auroc_is_the_mean_share_found_at_low_false_reject_rates(
    good_scores: list[int], defective_scores: list[int]
) -> None:
    good, defective = np.array(good_scores, float), np.array(defective_scores, float)
    highest = sorted(good_scores)[-max(round(0.1 * len(good_scores)), 1) :]
    shares = [np.mean((defective > score) + 0.5 * (defective == score)) for score in highest]
    assert partial_auroc(good, defective, 0.1) == pytest.approx(np.mean(shares))
    assert partial_auroc(good, defective, 1.0) == pytest.approx(auroc(good, defective))
    assert partial_auroc(good, defective, 0.1) <= auroc(good, defective) + 1e-9
