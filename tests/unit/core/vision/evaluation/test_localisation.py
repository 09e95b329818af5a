"""Pixel AUROC and AUPRO: computed by hand on small maps, and equal to a naive implementation on random ones."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, stats

from core.intake.image_decoding import Undecodable
from core.vision.evaluation.localisation import aupro, ground_truth, pixel_auroc

Maps = list[NDArray[np.float32]]
Masks = list[NDArray[np.bool_]]


def grids(*rows: list[list[float]]) -> Maps:
    return [np.array(grid, dtype=np.float32) for grid in rows]


def marked(*rows: list[list[int]]) -> Masks:
    return [np.array(grid, dtype=bool) for grid in rows]


def naive_auroc(maps: Maps, masks: Masks) -> float:
    values, inside = (
        np.concatenate([anomaly_map.ravel() for anomaly_map in maps]),
        np.concatenate([anomaly_map.ravel() for anomaly_map in masks]),
    )
    ranks, count = stats.rankdata(values), inside.sum()
    return float((ranks[inside].sum() - count * (count + 1) / 2) / (count * (~inside).sum()))


def naive_aupro(maps: Maps, masks: Masks, limit: float) -> float:
    points = [(0.0, 0.0)]
    labelled = [ndimage.label(mask, structure=np.ones((3, 3))) for mask in masks]
    for threshold in np.unique(np.concatenate([anomaly_map.ravel() for anomaly_map in maps]))[::-1]:
        hits = [anomaly_map >= threshold for anomaly_map in maps]
        false = sum((hit & ~mask).sum() for hit, mask in zip(hits, masks, strict=True))
        overlaps = [
            hit[labels == number].mean()
            for hit, (labels, regions) in zip(hits, labelled, strict=True)
            for number in range(1, regions + 1)
        ]
        points.append((false / sum((~mask).sum() for mask in masks), float(np.mean(overlaps))))
    rates, overlap = np.array(points).T
    fine = np.linspace(0, limit, 20_001)
    return float(np.trapezoid(np.interp(fine, rates, overlap), fine) / limit)


def random_case(seed: int) -> tuple[Maps, Masks]:
    random = np.random.default_rng(seed)
    masks = [random.random((14, 18)) < 0.04 for _ in range(4)] + [np.zeros((14, 18), dtype=bool)]
    grown = [ndimage.binary_dilation(mask, iterations=seed % 3 + 1) if mask.any() else mask for mask in masks]
    maps = [(random.gamma(1.0, 1.0, mask.shape) + 1.2 * mask).astype(np.float32) for mask in grown]
    return maps, [np.asarray(mask, dtype=bool) for mask in grown]


@pytest.mark.parametrize("seed", range(4))
def test_the_metrics_equal_a_naive_implementation(seed: int) -> None:
    maps, masks = random_case(seed)
    assert pixel_auroc(maps, masks) == pytest.approx(naive_auroc(maps, masks), abs=2e-4)
    for limit in (0.05, 0.3, 1.0):
        assert aupro(maps, masks, limit) == pytest.approx(naive_aupro(maps, masks, limit), abs=5e-4)


def test_a_map_equal_to_its_mask_is_perfect_and_its_inverse_is_not() -> None:
    mask = marked([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    right = [pixels.astype(np.float32) for pixels in mask]
    assert (pixel_auroc(right, mask), aupro(right, mask)) == (1, 1)
    wrong = [1 - pixels for pixels in right]
    assert (pixel_auroc(wrong, mask), aupro(wrong, mask)) == (0, 0)


def test_a_constant_map_has_an_auroc_of_one_half() -> None:
    mask = marked([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert pixel_auroc(grids([[2.0] * 3] * 3), mask) == 0.5
    assert aupro(grids([[2.0] * 3] * 3), mask, 1.0) == 0.5
    assert aupro(grids([[2.0] * 3] * 3), mask, 0.3) == pytest.approx(0.15)


def test_small_regions_count_as_much_as_large_ones() -> None:
    mask = marked([[1, 1, 1, 0, 0, 1]])
    only_the_large, only_the_small = grids([[1, 1, 1, 0, 0, 0]]), grids([[0, 0, 0, 0, 0, 1]])
    # One of two regions is found without false positives, the other one last: the overlap rises from 0.5 to 1.
    assert aupro(only_the_large, mask, 1.0) == aupro(only_the_small, mask, 1.0) == 0.75
    assert pixel_auroc(only_the_large, mask) == 0.75 + 0.25 / 2
    assert pixel_auroc(only_the_small, mask) == 0.25 + 0.75 / 2


def test_diagonal_neighbours_are_one_region() -> None:
    mask = marked([[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert aupro(grids([[1, 0, 0], [0, 0, 0], [0, 0, 0]]), mask, 1.0) == 0.75


def test_maps_are_enlarged_to_their_masks() -> None:
    anomaly_map = np.zeros((4, 6), dtype=np.float32)
    anomaly_map[1, 2] = 1
    mask = np.zeros((400, 600), dtype=bool)
    mask[140:160, 240:260] = True  # the centre of that cell
    assert pixel_auroc([anomaly_map], [mask]) > 0.999
    shifted = np.roll(mask, 150, axis=1)
    assert pixel_auroc([anomaly_map], [shifted]) < 0.6


def test_large_masks_are_reduced_without_losing_thin_defects() -> None:
    anomaly_map = np.zeros((64, 64), dtype=np.float32)
    anomaly_map[:, 32] = 1
    mask = np.zeros((2048, 2048), dtype=bool)
    mask[:, 1040] = True
    assert pixel_auroc([anomaly_map], [mask]) > 0.98


def test_images_without_defects_count_as_false_positives() -> None:
    mask = marked([[0, 1], [0, 0]])
    quiet, loud = (grids([[0, 1], [0, 0]], [[other] * 2] * 2) for other in (0, 2))
    assert aupro(quiet, [mask[0], None]) == 1
    assert aupro(loud, [mask[0], None]) == 0
    assert pixel_auroc(loud, [mask[0], None]) == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("maps", "masks", "reason"),
    [
        pytest.param([], [], "a mask for each map", id="none"),
        pytest.param(grids([[1.0]]), marked([[1]], [[0]]), "a mask for each map", id="unequal"),
        pytest.param(grids([[1.0]]), [None], "no mask", id="no mask"),
        pytest.param(grids([[1.0]]), marked([[0]]), "all or nothing", id="nothing marked"),
        pytest.param(grids([[1.0]]), marked([[1]]), "all or nothing", id="all marked"),
        pytest.param(grids([[np.nan, 1.0]]), marked([[1, 0]]), "not finite", id="nan"),
    ],
)
def test_maps_and_masks_that_cannot_be_measured_are_refused(maps: Maps, masks: Masks, reason: str) -> None:
    for measure in (pixel_auroc, aupro):
        with pytest.raises(ValueError, match=reason):
            measure(maps, masks)


@pytest.mark.parametrize("rate", [0.0, 1.1, -0.3])
def test_invalid_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        aupro(grids([[0, 1]]), marked([[0, 1]]), rate)


def saved(path: Path, mask: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


@pytest.mark.parametrize("name", ["007_mask.png", "007.png", "007_mask.bmp"])
@pytest.mark.parametrize("white", [1, 255])
def test_a_mask_is_found_under_its_mvtec_name(tmp_path: Path, name: str, white: int) -> None:
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10:20, 30:50] = white
    saved(tmp_path / "ground_truth" / "scratch" / name, mask)
    loaded = ground_truth(tmp_path, tmp_path / "test" / "scratch" / "007.jpg")
    assert loaded is not None
    np.testing.assert_array_equal(loaded, mask > 0)
    assert ground_truth(tmp_path, tmp_path / "test" / "scratch" / "008.jpg") is None
    assert ground_truth(tmp_path, tmp_path / "test" / "good" / "007.jpg") is None


def test_unusual_masks(tmp_path: Path) -> None:
    saved(tmp_path / "ground_truth" / "dent" / "1_mask.png", np.zeros((1300, 700), dtype=np.uint8))
    empty = ground_truth(tmp_path, tmp_path / "test" / "dent" / "1.png")
    assert empty is not None
    assert empty.shape == (434, 234)
    assert not empty.any()
    (tmp_path / "ground_truth" / "dent" / "2_mask.png").write_bytes(b"no image")
    with pytest.raises(Undecodable):
        ground_truth(tmp_path, tmp_path / "test" / "dent" / "2.png")
    with pytest.raises(ValueError, match="test"):
        ground_truth(tmp_path, tmp_path / "elsewhere" / "1.png")
