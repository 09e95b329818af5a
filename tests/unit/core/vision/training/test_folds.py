"""Folds: each image is held out once, together with its whole group."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.training.folds import make_folds

SEEDS = st.integers(0, 2**32 - 1)
groupings = st.lists(st.integers(0, 30), min_size=2, max_size=120).filter(lambda groups: len(set(groups)) > 1)


@given(groups=groupings, count=st.integers(2, 12), seed=SEEDS)
def test_each_image_is_held_out_once_with_its_whole_group(groups: list[int], count: int, seed: int) -> None:
    folds = make_folds(groups, count, seed)
    assert folds.count == min(count, len(set(groups)))
    assert folds.labels == make_folds(groups, count, seed).labels
    held_out = [folds.held_out(fold) for fold in range(folds.count)]
    assert sorted(index for images in held_out for index in images) == list(range(len(groups)))
    for fold, images in enumerate(held_out):
        training = folds.training(fold)
        assert images == sorted(images)
        assert training == sorted(training)
        assert sorted(images + training) == list(range(len(groups)))
        assert images
        assert training
        assert not {groups[index] for index in images} & {groups[index] for index in training}


@given(groups=groupings, count=st.integers(2, 12), seed=SEEDS)
def test_folds_differ_by_at_most_one_group(groups: list[int], count: int, seed: int) -> None:
    sizes = Counter(make_folds(groups, count, seed).labels).values()
    assert max(sizes) - min(sizes) <= max(Counter(groups).values())


@given(images=st.integers(2, 200), count=st.integers(2, 12), seed=SEEDS)
def test_folds_of_different_parts_differ_by_at_most_one_image(images: int, count: int, seed: int) -> None:
    sizes = Counter(make_folds(range(images), count, seed).labels).values()
    assert max(sizes) - min(sizes) <= 1


def test_the_order_is_random() -> None:
    assert len({make_folds(range(30), 5, seed).labels for seed in range(5)}) == 5


@pytest.mark.parametrize("groups", [[], [7], [3, 3, 3]])
def test_a_single_group_cannot_be_divided(groups: list[int]) -> None:
    with pytest.raises(ValueError, match="at least two groups"):
        make_folds(groups, 5, 0)
