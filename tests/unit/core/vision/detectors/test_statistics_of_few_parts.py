"""The statistics of positions when there are fewer good parts than features."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.vision.detectors.position_statistics import PositionStatistics, PositionSums

CHANNELS, ROWS, COLUMNS = 24, 5, 6


def good_parts(count: int, seed: int) -> Tensor:
    """Correlated features of `count` parts, each position with its own mean: (count, C, rows, columns)."""
    layout = np.random.default_rng(0)
    mixing = np.linalg.qr(layout.normal(0, 1, (CHANNELS, CHANNELS)))[0] * np.geomspace(1.5, 0.1, CHANNELS)
    mean = layout.normal(0, 1, (CHANNELS, ROWS * COLUMNS))
    noise = np.random.default_rng(seed).normal(0, 1, (count, CHANNELS, ROWS * COLUMNS))
    features = mean + np.einsum("cd,ndp->ncp", mixing, noise)
    return torch.from_numpy(features).float().reshape(count, CHANNELS, ROWS, COLUMNS)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(3, 10), seed=st.integers(1, 10**6))
def test_ten_parts_and_fewer_give_scores_of_the_usual_size(count: int, seed: int) -> None:
    statistics = PositionStatistics.from_sums(PositionSums.of([good_parts(count, seed)]))
    fresh = good_parts(20, seed + 1)
    distances = statistics.distance(fresh)
    assert bool(distances.isfinite().all())
    assert 0.5 < float(distances.median()) < 2
    defective = fresh.clone()
    defective[:, :, 2, 3] += 3 * torch.from_numpy(np.random.default_rng(seed).normal(0, 1, CHANNELS)).float()
    found = statistics.distance(defective)
    assert bool((found[:, 2, 3] > distances[:, 2, 3]).all())
    assert bool((found.flatten(1).argmax(1) == 2 * COLUMNS + 3).all())


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 10), seed=st.integers(0, 10**6))
def test_parts_that_are_all_alike_give_finite_scores(count: int, seed: int) -> None:
    alike = good_parts(1, seed).expand(count, -1, -1, -1)
    statistics = PositionStatistics.from_sums(PositionSums.of([alike]))
    distances = statistics.distance(torch.cat([alike[:1], alike[:1] + 1]))
    assert bool(distances.isfinite().all())
    assert float(distances[1].min()) > float(distances[0].max())
