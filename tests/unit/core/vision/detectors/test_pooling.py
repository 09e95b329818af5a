"""From an anomaly map to a score."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.vision.detectors.pooling import POOLINGS, pool_maps, pooling_name


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_a_score_is_the_mean_of_the_highest_cells(rows: int, columns: int, share: float, seed: int) -> None:
    maps = np.random.default_rng(seed).random((3, rows, columns), dtype=np.float32)
    scores = pool_maps(torch.from_numpy(maps), share)
    assert scores.dtype == torch.float64
    cells = rows * columns
    used = max(int(share * cells + 0.5), 1)
    highest = np.sort(maps.reshape(3, cells).astype(np.float64), axis=1)[:, cells - used :]
    np.testing.assert_allclose(scores.numpy(), highest.mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (64, 64)])
def test_without_a_share_the_score_is_the_highest_cell(shape: tuple[int, int]) -> None:
    maps = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
    assert torch.equal(pool_maps(maps, 0.0), maps.flatten(1).amax(1).double())


def test_poolings_have_names_of_their_own() -> None:
    assert [pooling_name(share) for share in POOLINGS] == [
        "maximum",
        "top-0.5-percent",
        "top-2-percent",
        "top-5-percent",
    ]
