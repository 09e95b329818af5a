"""Shots of the same part are grouped by their looks; different parts in like poses are not."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.vision.training import near_duplicates, neighbours
from core.vision.training.grouping import MAX_PAIRS, Grouping, group_by_looks
from tests.fixtures.repeated_shots import Picture, grained_part, looks_of_pictures, shot, smooth_screw


def group(pictures: Sequence[Picture], digests: list[str] | None = None) -> Grouping:
    return group_by_looks(digests or [str(index) for index in range(len(pictures))], looks_of_pictures(pictures))


def shots_of_parts(parts: int, shots: int, **part: float) -> list[Picture]:
    """The shots of each part are in a row, and are a bit shifted."""
    random = np.random.default_rng(parts)
    pictures = []
    for number in range(parts):
        drawn = grained_part(number, **part)  # type: ignore[arg-type]
        for _ in range(shots):
            row, column = random.uniform(-1.5, 1.5, 2)
            pictures.append(shot(drawn, int(random.integers(2**32)), shift=(row, column)))
    return pictures


@pytest.mark.parametrize("grain", [0.0, 2.0, 8.0])
@pytest.mark.parametrize("parts", [2, 20, 150])
def test_different_parts_in_the_same_pose_are_not_grouped(parts: int, grain: float) -> None:
    grouping = group(shots_of_parts(parts, 1, grain=grain))
    assert (grouping.groups, grouping.near_duplicates, grouping.pairs) == (list(range(parts)), 0, [])


@pytest.mark.parametrize("method", ["all pairs", "cells"])
@pytest.mark.parametrize(("parts", "shots"), [(10, 2), (40, 4), (12, 10)])
def test_shots_of_one_part_are_grouped_and_noted(
    parts: int, shots: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "cells":
        monkeypatch.setattr(neighbours, "_EXACT", 8)
    grouping = group(shots_of_parts(parts, shots))
    assert grouping.groups == [index // shots for index in range(parts * shots)]
    assert grouping.near_duplicates == parts * shots
    [note] = grouping.notes
    assert f"{parts * shots} of {parts * shots} images look like several shots" in note
    assert f"in {parts} groups" in note
    assert "--group-by '(.*)'" in note


def test_a_sample_shows_how_similar_shots_of_one_part_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 30)
    grouping = group([*shots_of_parts(60, 2, side=64), *shots_of_parts(100, 1, side=64)[60:]])
    assert grouping.groups == [*(index // 2 for index in range(120)), *range(60, 100)]
    assert 30 <= len(grouping.pairs) < 60  # the other pairs were not compared


@settings(max_examples=15, deadline=None)
@given(
    noise=st.floats(0.5, 2),
    gain=st.floats(0.85, 1.15),
    offset=st.floats(-20, 20),
    shift=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    quality=st.sampled_from([None, 85, 90, 95]),
)
def test_a_repeated_shot_differs_by_noise_light_shift_and_compression(
    noise: float, gain: float, offset: float, shift: tuple[float, float], quality: int | None
) -> None:
    parts = [grained_part(seed) for seed in range(20)]
    pictures = [shot(part, seed, noise=noise) for seed, part in enumerate(parts)]
    again = shot(parts[3], 99, noise=noise, gain=gain, offset=offset, shift=shift, quality=quality)
    grouping = group([*pictures, again])
    assert grouping.groups == [*range(20), 3]
    [pair] = grouping.pairs
    assert (pair.first, pair.second) == (3, 20)
    assert 0.8 < pair.similarity <= 1


@pytest.mark.parametrize("side", [64, 96, 160])
def test_only_some_of_many_have_a_second_shot(side: int) -> None:
    pictures = shots_of_parts(60, 1, side=side)
    again = [shot(grained_part(number, side=side), 1000 + number, shift=(1, -1)) for number in range(7)]
    grouping = group([*pictures, *again])
    assert (grouping.count, grouping.near_duplicates) == (60, 14)
    assert grouping.groups[60:] == list(range(7))


def test_screws_in_any_pose_are_not_grouped_but_a_second_shot_of_one_is() -> None:
    random = np.random.default_rng(1)
    poses = [(float(random.uniform(0, 360)), *random.normal(0, 0.03, 2)) for _ in range(60)]
    screws = [smooth_screw(degrees, x=x, y=y) for degrees, x, y in poses]
    pictures = [shot(screw, seed) for seed, screw in enumerate(screws)]
    assert group(pictures).groups == list(range(60))
    again = shot(screws[7], 99, gain=1.05, shift=(0.6, -1.2), quality=90)
    assert group([*pictures, again]).groups == [*range(60), 7]


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_smooth_parts_in_like_poses_are_not_grouped(spread: float) -> None:
    random = np.random.default_rng(2)
    screws = [smooth_screw(30 + float(random.normal(0, spread)), x=float(random.normal(0, 0.01))) for _ in range(40)]
    assert group([shot(screw, seed) for seed, screw in enumerate(screws)]).groups == list(range(40))


def test_if_different_parts_differ_only_by_noise_a_note_says_that_looks_do_not_help() -> None:
    grouping = group([shot(smooth_screw(30), seed) for seed in range(30)])
    assert (grouping.groups, grouping.near_duplicates) == (list(range(30)), 0)
    [note] = grouping.notes
    assert "look alike, apart from noise" in note
    assert "none are grouped" in note
    assert "--group-by" in note


def test_parts_in_a_few_poses_are_not_taken_for_shots_of_a_few_parts() -> None:
    grouping = group([shot(smooth_screw(45 * (seed % 8), side=96), seed) for seed in range(8 * 20)])
    assert (grouping.count, grouping.near_duplicates) == (160, 0)


def test_lots_of_shots_of_a_few_parts_are_hard_to_believe() -> None:
    grouping = group(shots_of_parts(6, 20))
    assert (grouping.count, grouping.near_duplicates, grouping.pairs) == (120, 0, [])
    assert "120 of 120 images look like shots of only a few parts" in grouping.notes[0]


def test_a_chain_of_similar_parts_does_not_swallow_the_set() -> None:
    parts = [(1 - step) * grained_part(1) + step * grained_part(2) for step in np.linspace(0, 1, 60)]
    grouping = group([shot(part, seed) for seed, part in enumerate(parts)])
    assert (grouping.count, grouping.near_duplicates) == (60, 0)


def test_copies_are_grouped_without_a_note() -> None:
    pictures = [shot(grained_part(seed, grain=20), seed) for seed in range(40)]
    grouping = group([pictures[index] for index in (*range(40), 3, 3)], [*map(str, range(40)), "3", "3"])
    assert (grouping.groups, grouping.near_duplicates, grouping.pairs) == ([*range(40), 3, 3], 0, [])


def test_the_same_pixels_in_other_files_are_near_duplicates() -> None:
    pictures = [shot(grained_part(seed), seed) for seed in range(20)]
    grouping = group([*pictures, pictures[4], pictures[4], pictures[9]])
    assert grouping.groups == [*range(20), 4, 4, 9]
    assert grouping.near_duplicates == 5
    assert [pair.similarity for pair in grouping.pairs] == pytest.approx([1.0] * 4)


def test_pairs_are_within_groups_most_similar_first_and_few() -> None:
    grouping = group(shots_of_parts(60, 4, side=64))
    similarities = [pair.similarity for pair in grouping.pairs]
    assert similarities == sorted(similarities, reverse=True)
    assert len(grouping.pairs) == MAX_PAIRS
    assert all(grouping.groups[pair.first] == grouping.groups[pair.second] for pair in grouping.pairs)
    assert all(0 <= pair.first < pair.second < 240 for pair in grouping.pairs)


def blank(count: int, shape: tuple[int, int]) -> list[Picture]:
    return [np.full(shape, 100.0) for _ in range(count)]


def noise(count: int, shape: tuple[int, int]) -> list[Picture]:
    return [np.random.default_rng(seed).uniform(0, 255, shape) for seed in range(count)]


@pytest.mark.parametrize("draw", [blank, noise])
@pytest.mark.parametrize("shape", [(8, 8), (8, 500), (40, 40)])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_images_without_content_are_not_grouped(
    count: int, shape: tuple[int, int], draw: Callable[[int, tuple[int, int]], list[Picture]]
) -> None:
    assert group(draw(count, shape)).groups == list(range(count))


def test_images_of_other_sizes_are_compared_where_they_overlap() -> None:
    pictures = [shot(grained_part(seed), seed) for seed in range(20)]
    again = shot(grained_part(5), 99)
    assert group([*pictures, again[2:, 3:]]).groups == [*range(20), 5]
    assert group([*pictures, again[:64]]).groups == list(range(21))
