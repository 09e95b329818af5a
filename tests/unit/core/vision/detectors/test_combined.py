"""The combined maps: each member standardised by good parts that it was not fitted on, then the higher or the mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from core.vision.detectors.combined import Combination, Maximum, Mean, Rule, Standard, combine
from core.vision.detectors.feature_gaussian import FeatureGaussian
from core.vision.detectors.feature_model import FeatureModel, with_prefix
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.training.folds import make_folds
from tests.fixtures.feature_layers import SETTINGS, cross_fit, good_layers, held_out_scores

PARTS = 30
FOLDS = make_folds(range(PARTS), 5, seed=0)
COMBINATIONS: list[type[Combination]] = [Maximum, Mean]
MEMBERS: list[type[FeatureModel]] = [FeatureGaussian, MemoryBank]

scores = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


@given(values=scores)
def test_a_typical_score_becomes_0_and_one_that_a_tenth_exceeds_becomes_1(values: list[float]) -> None:
    of_good = torch.tensor(values, dtype=torch.float64)
    standard = Standard.from_scores(of_good)
    assert standard.spread > 0
    standardised = standard.apply(of_good)
    assert bool(standardised.isfinite().all())
    assert float(standardised.quantile(0.5)) == pytest.approx(0, abs=1e-6)
    if float(of_good.quantile(0.9)) - float(of_good.quantile(0.5)) > 1e-3 * max(float(of_good.abs().max()), 1):
        assert float(standardised.quantile(0.9)) == pytest.approx(1)


@given(
    seed=st.integers(0, 10**6),
    centers=st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
    spreads=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_each_rule_follows_its_name(seed: int, centers: tuple[float, float], spreads: tuple[float, float]) -> None:
    random = torch.Generator().manual_seed(seed)
    first, second = (3 * torch.rand((2, 3, 4), generator=random) for _ in range(2))
    standards = [Standard(center, spread) for center, spread in zip(centers, spreads, strict=True)]
    standardised = [standard.apply(each) for standard, each in zip(standards, (first, second), strict=True)]
    expected: dict[Rule, Tensor] = {
        "maximum": torch.maximum(*standardised),
        "mean": (standardised[0] + standardised[1]) / 2,
    }
    for rule, values in expected.items():
        combined = combine([first, second], standards, rule)
        torch.testing.assert_close(combined, (1 + values / 4).clamp_min(0))
        swapped = combine([second, first], standards[::-1], rule)
        torch.testing.assert_close(swapped, combined)


def test_a_coarse_map_is_brought_onto_the_fine_grid() -> None:
    coarse, fine = torch.zeros(1, 2, 2), torch.zeros(1, 8, 8)
    coarse[0, 1, 1] = 4
    for maps in ([coarse, fine], [fine, coarse]):
        combined = combine(maps, [Standard(0.0, 1.0)] * 2, "maximum")
        assert combined.shape == (1, 8, 8)
        assert float(combined[0, 7, 7]) == 2  # 1 + 4 / 4
        assert float(combined[0, 0, 0]) == 1


@pytest.fixture(scope="module", params=COMBINATIONS, ids=lambda combination: combination.name)
def combination(request: pytest.FixtureRequest) -> type[Combination]:
    kind: type[Combination] = request.param
    return kind


def test_the_maps_are_those_of_its_members_combined(combination: type[Combination]) -> None:
    layers, fresh = good_layers(PARTS, 0), good_layers(6, 1)
    fitted = cross_fit(combination, layers, FOLDS)
    for model in (fitted.final, *fitted.held_out):
        state = model.state_dict()
        members = [kind.from_state_dict(with_prefix(state, f"{kind.name}."), SETTINGS) for kind in MEMBERS]
        standards = [Standard(*values) for values in state["standards"].tolist()]
        expected = combine([member.maps(fresh) for member in members], standards, combination.rule)
        torch.testing.assert_close(model.maps(fresh), expected)


def test_its_members_are_fitted_like_members_alone_and_standardised_by_their_held_out_scores(
    combination: type[Combination],
) -> None:
    layers = good_layers(PARTS, 2)
    fitted = cross_fit(combination, layers, FOLDS)
    state = fitted.final.state_dict()
    for number, kind in enumerate(MEMBERS):
        alone = cross_fit(kind, layers, FOLDS)
        for name, value in alone.final.state_dict().items():
            assert torch.equal(state[f"{kind.name}.{name}"], value)
        expected = Standard.from_scores(held_out_scores(alone, layers, FOLDS))
        assert state["standards"][number].tolist() == pytest.approx([expected.center, expected.spread], rel=0.02)


def test_it_finds_what_either_member_finds() -> None:
    """A part that is turned by half a turn is normal for the bank; a strange feature at a constant place is not."""
    layers = good_layers(PARTS, 3)
    turned, strange = (good_layers(4, seed) for seed in (4, 5))
    turned = [layer.flip(2, 3) for layer in turned]
    for layer in strange:
        layer[:, 0] += 4
    good = good_layers(20, 6)
    fitted = cross_fit(Maximum, layers, FOLDS).final
    highest = fitted.maps(good).flatten(1).amax(1).max()
    for defective in (turned, strange):
        assert bool((fitted.maps(defective).flatten(1).amax(1) > highest).all())


def test_a_stored_combination_gives_the_same_maps(combination: type[Combination]) -> None:
    layers = good_layers(PARTS, 7)
    fitted = cross_fit(combination, layers, FOLDS).final
    again = combination.from_state_dict(fitted.state_dict(), SETTINGS)
    torch.testing.assert_close(again.maps(layers), fitted.maps(layers), rtol=0, atol=0)


def test_a_state_that_does_not_fit_is_refused(combination: type[Combination]) -> None:
    state = cross_fit(combination, good_layers(PARTS, 8), FOLDS).final.state_dict()
    for standards in ([[1.0, 1.0]], [[1.0, 1.0]] * 3, [[1.0, 1.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, float("nan")]]):
        with pytest.raises(ValueError, match="the standards do not fit"):
            combination.from_state_dict({**state, "standards": torch.tensor(standards)}, SETTINGS)
    for missing in ("standards", f"{MemoryBank.name}.vectors", f"{FeatureGaussian.name}.center"):
        with pytest.raises(KeyError):
            combination.from_state_dict({name: each for name, each in state.items() if name != missing}, SETTINGS)
