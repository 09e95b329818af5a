"""The good parts of a folder: how many are needed, which rate they allow, and which of them stay together."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from core.vision.calibration.calibration import SampleTooSmall, calibrate
from core.vision.training.grouping import InvalidGroups
from core.vision.training_data import MIN_PARTS, TrainingData, read_training_data
from core.vision.training_options import InvalidOptions, TrainingOptions

QUICK = {"architecture": "conv-autoencoder", "input_size": 32, "device": "cpu"}


@pytest.fixture
def parts(part: Callable[..., bytes], tmp_path: Path) -> Callable[[int], Path]:
    """`parts(count)` writes a folder of that many good parts."""

    def write(count: int) -> Path:
        good = tmp_path / "train" / "good"
        good.mkdir(parents=True)
        for seed in range(count):
            (good / f"{seed:03}.png").write_bytes(part(seed))
        return tmp_path

    return write


def read(folder: Path, **options: object) -> tuple[TrainingData, list[str]]:
    """Return the data of a folder and the notes about it."""
    notes: list[str] = []
    data = read_training_data(
        folder,
        TrainingOptions(**{**QUICK, **options}),  # type: ignore[arg-type]
        lambda progress: notes.extend([progress.note] if progress.note else []),
    )
    return data, notes


@pytest.mark.parametrize(("count", "rate"), [(10, 1 / 11), (18, 1 / 19), (19, 0.05), (50, 0.05)])
def test_the_default_rate_is_5_percent_or_the_smallest_that_so_few_parts_allow(
    parts: Callable[[int], Path], count: int, rate: float
) -> None:
    data, notes = read(parts(count))
    assert data.rate == rate
    assert calibrate(range(count), data.rate).threshold > count - 2  # that of the highest score, or of the second one
    about_number = [note for note in notes if f"{count} good parts are few" in note]
    assert len(about_number) == (count < 50)
    for note in about_number:
        assert "50 parts or more are better" in note
        assert ("They allow a false-reject rate of" in note) == (rate > 0.05)


def test_fewer_than_ten_parts_are_refused(parts: Callable[[int], Path]) -> None:
    assert MIN_PARTS == 10
    with pytest.raises(SampleTooSmall, match="9 good parts are too few: at least 10 are needed"):
        read(parts(9), false_reject_rate=0.5)


def test_a_requested_rate_that_so_few_parts_do_not_allow_is_refused(parts: Callable[[int], Path]) -> None:
    folder = parts(12)
    with pytest.raises(SampleTooSmall, match=r"12 good parts .* false-reject rate of 0\.05: at least 19"):
        read(folder, false_reject_rate=0.05)
    assert read(folder, false_reject_rate=0.1)[0].rate == 0.1


def test_a_review_rate_below_the_rate_that_so_few_parts_allow_is_refused(parts: Callable[[int], Path]) -> None:
    folder = parts(12)
    with pytest.raises(InvalidOptions, match=r"12 good parts allow a false-reject rate of 7\.7% at best"):
        read(folder, review_rate=0.07)
    assert read(folder, review_rate=0.08)[0].rate == 1 / 13


def test_images_of_a_single_part_are_refused(parts: Callable[[int], Path]) -> None:
    with pytest.raises(InvalidGroups, match="all 12 images of good parts belong to one part or lot"):
        read(parts(12), group_by=r"good/(\d)")


@pytest.mark.parametrize(("group_by", "near_duplicates"), [(None, 60), (r"part(\d+)_", 0)])
def test_shots_of_a_part_are_in_one_fold_and_similar_images_are_noted(
    part: Callable[..., bytes], tmp_path: Path, group_by: str | None, near_duplicates: int
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for number in range(60):
        first = Image.open(io.BytesIO(part(number // 2, side=64)))
        shot = first.point(lambda value, more=number % 2: min(value + more, 255))
        shot.save(good / f"part{number // 2:02}_{number % 2}.png")
    data, notes = read(tmp_path, group_by=group_by)
    assert data.grouping.groups == [index // 2 for index in range(60)]
    assert data.grouping.near_duplicates == near_duplicates
    assert any("look like several shots" in note for note in notes) == (near_duplicates > 0)
    labels = data.folds(10, seed=0).labels
    assert labels[::2] == labels[1::2]
    assert len(data.good.paths) == 60  # none is set aside


def test_an_invalid_grouping_option_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="not a valid regular expression"):
        TrainingOptions(group_by="part(")
