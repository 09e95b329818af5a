"""The memory bank: its vectors cover the features of good parts, and its distances are those to the nearest one."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.vision.detectors import memory_bank
from core.vision.detectors.feature_model import CrossFit
from core.vision.detectors.features import FeatureBatch, Layers
from core.vision.detectors.memory_bank import (
    DIMENSIONS,
    MemoryBank,
    farthest_points,
    local_features,
    principal_components,
    project,
)
from core.vision.training.fit_interface import FitOptions
from core.vision.training.folds import make_folds
from tests.fixtures.feature_layers import CHANNELS, SETTINGS, cross_fit, good_layers

PARTS = 20
FOLDS = make_folds(range(PARTS), 5, seed=0)
CELLS = 4 * 4
FEATURES = sum(CHANNELS)

points = st.integers(1, 3).flatmap(
    lambda dimensions: st.lists(
        st.tuples(*[st.integers(-20, 20)] * dimensions), min_size=1, max_size=9, unique=True
    ).map(lambda rows: torch.tensor(rows, dtype=torch.float32))
)


def radius(vectors: Tensor, chosen: Tensor | tuple[int, ...]) -> float:
    """Return the largest distance of a vector to the nearest chosen one."""
    return float(torch.cdist(vectors, vectors[torch.as_tensor(chosen)]).min(1).values.max())


@given(vectors=points, count=st.integers(1, 5))
def test_the_chosen_vectors_cover_all_others_at_most_twice_as_far_as_the_best_choice(
    vectors: Tensor, count: int
) -> None:
    chosen = farthest_points(vectors, count)
    count = min(count, len(vectors))
    assert len(set(chosen.tolist())) == len(chosen) == count
    best = min(radius(vectors, choice) for choice in combinations(range(len(vectors)), count))
    assert radius(vectors, chosen) <= 2 * best + 1e-3


@given(vectors=points, count=st.integers(1, 8))
def test_vectors_are_chosen_one_after_the_other_from_the_middle(vectors: Tensor, count: int) -> None:
    chosen = farthest_points(vectors, count)
    to_mean = (vectors - vectors.mean(0)).norm(dim=1)
    assert float(to_mean[chosen[0]]) == pytest.approx(float(to_mean.min()), abs=1e-3)
    assert torch.equal(farthest_points(vectors, count + 1)[: len(chosen)], chosen)
    assert sorted(farthest_points(vectors, 100).tolist()) == list(range(len(vectors)))


def random_bank(seed: int, vectors: int, dimensions: int = 8) -> MemoryBank:
    random = torch.Generator().manual_seed(seed)
    return MemoryBank(
        torch.randn(FEATURES, generator=random),
        torch.randn((FEATURES, dimensions), generator=random),
        torch.randn((vectors, dimensions), generator=random).half().float(),
    )


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), vectors=st.integers(1, 300), images=st.integers(1, 4))
def test_the_map_is_the_distance_to_the_nearest_vector(seed: int, vectors: int, images: int) -> None:
    bank, layers = random_bank(seed, vectors), good_layers(images, seed)
    state = bank.state_dict()
    cells = project(local_features(layers), state["center"], state["projection"])
    expected = torch.cdist(cells.reshape(-1, 8).double(), bank.vectors.double()).min(1).values / 8**0.5
    maps = bank.maps(layers)
    assert (maps.shape, maps.dtype) == ((images, 4, 4), torch.float32)
    torch.testing.assert_close(maps.reshape(-1).double(), expected, rtol=1e-4, atol=1e-5)


def test_many_cells_are_searched_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, layers = random_bank(1, 100), good_layers(7, 1)
    at_once = bank.maps(layers)
    monkeypatch.setattr(memory_bank, "_BLOCK", 10)
    torch.testing.assert_close(bank.maps(layers), at_once)


def test_a_stored_bank_gives_the_same_maps() -> None:
    layers = good_layers(PARTS, 3)
    bank = cross_fit(MemoryBank, layers, FOLDS).final
    again = MemoryBank.from_state_dict(bank.state_dict(), SETTINGS)
    torch.testing.assert_close(again.maps(layers), bank.maps(layers), rtol=0, atol=0)


def test_the_bank_of_few_parts_holds_all_of_their_cells_and_that_of_a_fold_none_of_its_own() -> None:
    layers = good_layers(PARTS, 4)
    fitted = cross_fit(MemoryBank, layers, FOLDS)
    assert fitted.final.vectors.shape == (PARTS * CELLS, FEATURES)  # fewer features than principal components
    assert float(fitted.final.maps(layers).max()) < 0.01  # the rounding to float16
    for fold, bank in enumerate(fitted.held_out):
        assert len(bank.vectors) == len(FOLDS.training(fold)) * CELLS
        maps = bank.maps(layers)
        assert float(maps[FOLDS.training(fold)].max()) < 0.01
        assert float(maps[FOLDS.held_out(fold)].min()) > 0.05


def test_banks_are_bounded_and_cover_what_they_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = good_layers(PARTS, 5)
    monkeypatch.setattr(memory_bank, "MAX_VECTORS", 60)
    fitted = cross_fit(MemoryBank, layers, FOLDS)
    assert {len(bank.vectors) for bank in (fitted.final, *fitted.held_out)} == {60}
    state = fitted.final.state_dict()
    cells = project(local_features(layers), state["center"], state["projection"]).reshape(-1, FEATURES)
    drawn = cells[torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))[:60]]
    by_chance = MemoryBank(state["center"], state["projection"], drawn)
    assert float(fitted.final.maps(layers).max()) < 0.8 * float(by_chance.maps(layers).max())


@pytest.mark.parametrize("parts", [10, 40], ids=["before-the-components-are-known", "after"])
def test_the_same_features_give_the_same_bank(parts: int) -> None:
    """The principal components are those of the first 32 images, or of all if there are fewer."""
    folds = make_folds(range(parts), 3, seed=0)
    first, second = (cross_fit(MemoryBank, good_layers(parts, 6), folds).final.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def texture_layers(count: int, seed: int) -> Layers:
    """Layers that are alike at all positions: one of 10 × 10 cells, so that nothing is interpolated."""
    return [torch.randn((count, FEATURES, 10, 10), generator=torch.Generator().manual_seed(seed))]


@pytest.fixture(scope="module")
def bank_of_texture() -> MemoryBank:
    collector = MemoryBank.collector(SETTINGS, 0, "cpu")
    collector.add(FeatureBatch(texture_layers(4, 0), [0, 1, 2, 3], [False] * 4))
    folds = make_folds(range(4), 2, seed=0)
    return collector.fit(CrossFit(folds, FitOptions(), "cpu", lambda _: None)).final


@given(row=st.integers(2, 7), column=st.integers(2, 7))
def test_a_defect_scores_the_same_wherever_it_lies(bank_of_texture: MemoryBank, row: int, column: int) -> None:
    in_the_middle = texture_layers(1, 1)
    in_the_middle[0][:, :, 5, 5] += 20
    elsewhere = [in_the_middle[0].roll((row - 5, column - 5), (2, 3))]
    found = bank_of_texture.maps(elsewhere)[0]
    torch.testing.assert_close(found[row, column], bank_of_texture.maps(in_the_middle)[0, 5, 5])
    beyond = found.clone()
    beyond[row - 1 : row + 2, column - 1 : column + 2] = 0  # a defect reaches its neighbours
    assert float(found[row, column]) > 1.5 * float(beyond.max())


def test_principal_components_are_uncorrelated_and_ordered_and_their_signs_are_fixed() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn((3000, 80), generator=random) @ torch.randn((80, 80), generator=random) + 5
    center, projection = principal_components(features)
    assert projection.shape == (80, DIMENSIONS)
    values = (features - center) @ projection
    covariance = values.T @ values / len(values)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, variances.diag(), rtol=0, atol=1e-2)
    assert bool((variances[:-1] >= variances[1:] - 1e-3).all())
    again = principal_components(features.flip(0))[1]
    torch.testing.assert_close(again, projection, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"vectors": torch.zeros(0, 4)},
        {"vectors": torch.zeros(5)},
        {"vectors": torch.zeros(5, 3)},
        {"projection": torch.zeros(6, 4)},
        {"center": torch.zeros(6)},
    ],
    ids=["empty", "no-matrix", "dimensions", "projection", "center"],
)
def test_tensors_that_do_not_fit_together_are_refused(wrong: dict[str, Tensor]) -> None:
    fitting = {"center": torch.zeros(7), "projection": torch.zeros(7, 4), "vectors": torch.zeros(5, 4)}
    MemoryBank.from_state_dict(fitting, SETTINGS)
    with pytest.raises(ValueError, match="do not fit together"):
        MemoryBank.from_state_dict({**fitting, **wrong}, SETTINGS)
