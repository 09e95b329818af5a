"""The nearest neighbours by spectra, exactly and in cells."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.vision.training import neighbours
from core.vision.training.neighbours import find_neighbours


def families(count: int, size: int, *, seed: int = 0) -> NDArray[np.float16]:
    """Return spectra of families, each in a row."""
    random = np.random.default_rng(seed)
    common = np.repeat(random.normal(0, 1, (count, 200)), size, axis=0)
    return (common + random.normal(0, 0.3, common.shape)).astype(np.float16)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 1), (30, 3), (300, 4)])
def test_candidates_are_of_one_family(count: int, size: int) -> None:
    found = find_neighbours(families(count, size))
    pairs, fractions = found.candidates(3)
    assert sorted(map(tuple, pairs.tolist())) == [
        (first, second)
        for first in range(count * size)
        for second in range(first + 1, count * size)
        if first // size == second // size
    ]
    assert (fractions < 0.3).all()
    assert found.indices.shape == found.distances.shape == (count * size, min(8, count * size - 1))
    assert (np.diff(found.distances, axis=1) >= 0).all()
    assert (found.indices != np.arange(count * size)[:, None]).all()


def test_cells_find_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    spectra = families(500, 3)
    exact = find_neighbours(spectra)
    monkeypatch.setattr(neighbours, "_EXACT", 100)
    monkeypatch.setattr(neighbours, "_CELL", 300)
    found = find_neighbours(spectra)
    assert (found.indices[:, :2] == exact.indices[:, :2]).mean() > 0.99
    finite = np.isfinite(found.distances)
    assert all(len(set(row[kept])) == kept.sum() for row, kept in zip(found.indices, finite, strict=True))
    pairs, _ = found.candidates(3)
    assert (pairs[:, 0] // 3 == pairs[:, 1] // 3).all()


def test_no_images_have_no_neighbours() -> None:
    assert find_neighbours(np.zeros((1, 50), np.float16)).candidates(3)[0].shape == (0, 2)


def test_equal_spectra_are_candidates() -> None:
    assert len(find_neighbours(np.zeros((5, 50), np.float16)).candidates(3)[0]) > 0
