"""The split keeps each group of images on one side."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.vision.training.dataset import InvalidDataset
from core.vision.training.split import split
from core.vision.training_data import read_training_data
from core.vision.training_options import TrainingOptions


@given(groups=st.lists(st.integers(0, 200), min_size=60, max_size=200), seed=st.integers(0, 2**32))
def test_the_split_is_disjoint_and_complete_and_keeps_groups_together(groups: list[int], seed: int) -> None:
    if len(set(groups)) < 30:
        return
    parts = split(groups, seed=seed, validation=0.1, calibration=0.25, min_calibration=19)
    sides = [parts.training, parts.validation, parts.calibration]
    assert sorted(index for side in sides for index in side) == list(range(len(groups)))
    assert all(side == sorted(side) for side in sides)
    on_side = [{groups[index] for index in side} for side in sides]
    assert not on_side[0] & on_side[1]
    assert not on_side[0] & on_side[2]
    assert not on_side[1] & on_side[2]
    assert len(parts.calibration) >= 19
    assert parts.validation
    assert parts == split(groups, seed=seed, validation=0.1, calibration=0.25, min_calibration=19)


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_lot_is_used_for_training(seed: int) -> None:
    lots = [0] * 60 + [1] * 25 + [2] * 20
    parts = split(lots, seed=seed, validation=0.1, calibration=0.25, min_calibration=19)
    assert {lots[index] for index in parts.training} == {0}


@pytest.mark.parametrize("groups", [[0] * 100, [0] * 50 + [1] * 50, [], [0] * 90 + list(range(1, 11))])
def test_too_few_groups_are_refused(groups: list[int]) -> None:
    with pytest.raises(InvalidDataset, match=rf"\({len(set(groups))} groups of different ones\) are too few"):
        split(groups, seed=0, validation=0.1, calibration=0.25, min_calibration=19)


def test_training_keeps_parts_on_one_side_of_the_split_and_notes_similar_images(
    part: Callable[..., bytes], tmp_path: Path
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for number in range(60):
        first = Image.open(io.BytesIO(part(number // 2, side=64)))
        shot = first.point(lambda value, more=number % 2: min(value + more, 255))
        shot.save(good / f"part{number // 2:02}_{number % 2}.png")
    for group_by, near_duplicates in ((None, 60), (r"part(\d+)_", 0)):
        options = TrainingOptions(
            architecture="conv-autoencoder", input_size=32, device="cpu", group_by=group_by, false_reject_rate=0.1
        )
        notes: list[str | None] = []
        training_data = read_training_data(
            tmp_path,
            options,
            lambda now: notes.append(now.note),  # noqa: B023 - called at once
        )
        assert training_data.grouping.groups == [index // 2 for index in range(60)]
        assert training_data.grouping.near_duplicates == near_duplicates
        assert any(note and "look like several shots" in note for note in notes) == (near_duplicates > 0)
        sides = (training_data.parts.training, training_data.parts.validation, training_data.parts.calibration)
        assert sum(len({index // 2 for index in side}) for side in sides) == 30


def test_an_invalid_grouping_option_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="not a valid regular expression"):
        TrainingOptions(group_by="part(")
