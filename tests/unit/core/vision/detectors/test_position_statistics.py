"""Gaussians at each position: what their distances mean, and how those of the folds follow from those of all images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.vision.detectors.position_statistics import PositionStatistics, PositionSums

CHANNELS, ROWS, COLUMNS = 6, 2, 3


def mixed_features(count: int, seed: int) -> Tensor:
    """Features whose channels are correlated, at each position in another way: (count, 6, 2, 3)."""
    random = np.random.default_rng(seed)
    mixing = np.eye(CHANNELS) + random.uniform(-0.2, 0.2, (ROWS * COLUMNS, CHANNELS, CHANNELS))
    mean = random.normal(0, 2, (CHANNELS, ROWS * COLUMNS))
    values = mean + np.einsum("pij,njp->nip", mixing, random.normal(0, 1, (count, CHANNELS, ROWS * COLUMNS)))
    return torch.from_numpy(values).float().reshape(count, CHANNELS, ROWS, COLUMNS)


def statistics_of(features: Tensor) -> PositionStatistics:
    return PositionStatistics.from_sums(PositionSums.of([features]))


def test_whitened_deviations_are_uncorrelated_with_variance_one() -> None:
    features = mixed_features(4000, seed=0)
    statistics = PositionStatistics.from_sums(PositionSums.of(torch.tensor_split(features, 60)))
    distances = statistics.distance(features)
    assert distances.shape == (4000, ROWS, COLUMNS)
    assert float(distances.square().mean()) == pytest.approx(1, abs=0.1)
    deviations = features.flatten(2).permute(2, 1, 0) - statistics.mean[:, :, None]
    whitened = statistics.whitening @ deviations
    covariance = whitened @ whitened.transpose(1, 2) / 4000
    torch.testing.assert_close(covariance, torch.eye(CHANNELS).expand_as(covariance), rtol=0, atol=0.1)


def test_stored_statistics_give_the_same_distances() -> None:
    features = mixed_features(40, seed=1)
    for sums in (PositionSums.of([features]), PositionSums.of([features]).pooled()):
        statistics = PositionStatistics.from_sums(sums)
        again = PositionStatistics.from_state_dict(statistics.state_dict(), sums.rows, sums.columns)
        torch.testing.assert_close(statistics.distance(features), again.distance(features), rtol=0, atol=0)


def test_statistics_of_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PositionSums.of([])


@settings(max_examples=30)
@given(
    count=st.integers(4, 60),
    seed=st.integers(0, 10**6),
    minibatch=st.integers(1, 20),
    held_out=st.sets(st.integers(0, 59), min_size=1, max_size=30),
)
def test_the_statistics_of_a_fold_equal_those_of_the_other_images_alone(
    count: int, seed: int, minibatch: int, held_out: set[int]
) -> None:
    features = mixed_features(count, seed)
    fold = sorted(index for index in held_out if index < count)
    others = [index for index in range(count) if index not in fold]
    if not fold or len(others) < 2:
        return
    everything = PositionSums.of(torch.split(features, minibatch))
    by_subtraction = PositionStatistics.from_sums(everything.without(PositionSums.of([features[fold]])))
    directly = statistics_of(features[others])
    torch.testing.assert_close(by_subtraction.mean, directly.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_subtraction.distance(features), directly.distance(features), rtol=5e-3, atol=1e-3)


@settings(max_examples=20)
@given(count=st.integers(2, 40), seed=st.integers(0, 10**6))
def test_pooled_statistics_are_those_of_one_position_with_the_features_of_all(count: int, seed: int) -> None:
    features = mixed_features(count, seed)
    pooled = PositionStatistics.from_sums(PositionSums.of([features]).pooled())
    flat = features.flatten(2).permute(0, 2, 1).reshape(-1, CHANNELS, 1, 1)
    directly = statistics_of(flat).distance(flat).reshape(count, ROWS, COLUMNS)
    torch.testing.assert_close(pooled.distance(features), directly, rtol=5e-3, atol=1e-3)


def test_pooled_statistics_do_not_know_the_position() -> None:
    features = mixed_features(50, seed=3)
    turned = features.flip(3)
    anywhere = PositionStatistics.from_sums(PositionSums.of([features]).pooled())
    torch.testing.assert_close(anywhere.distance(turned), anywhere.distance(features).flip(2))
    in_place = statistics_of(features)
    assert float(in_place.distance(turned).mean()) > 1.5 * float(in_place.distance(features).mean())
