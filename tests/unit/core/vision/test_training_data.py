"""The good parts of a folder: how many are needed, which rate they allow, and which of them stay together."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from core.models.training_options import MIN_PARTS
from core.vision.calibration.calibration import SampleTooSmall, calibrate
from core.vision.training.dataset import InvalidDataset
from core.vision.training.group_by import InvalidGroups
from core.vision.training_data import TrainingData, read_training_data
from core.vision.training_options import InvalidOptions, TrainingOptions
from tests.fixtures.posed_parts import write_posed_folder

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


@pytest.fixture
def posed(tmp_path: Path) -> Path:
    """19 good parts in any pose, and an image that shows none, which is the first one."""
    folder = write_posed_folder(tmp_path, good=19)
    Image.new("RGB", (240, 200), (200, 201, 199)).save(folder / "train" / "good" / "!empty.png")
    return folder


def test_the_poses_of_parts_are_learned_unless_that_is_not_wanted(posed: Path) -> None:
    data, notes = read(posed)
    assert data.poses is not None
    assert data.poses.vary
    assert data.poses.upright.axis == "area"
    assert any("the parts lie in different poses: their turns have a standard deviation of 1" in note for note in notes)
    as_it_is, notes = read(posed, pose="as-is")
    assert as_it_is.poses is None
    assert not any("pose" in note for note in notes)


def test_good_images_whose_pose_is_not_found_are_left_out(posed: Path) -> None:
    options = TrainingOptions(**QUICK)  # type: ignore[arg-type]
    data, _ = read(posed)
    assert data.poses is not None
    notes: list[str] = []
    preprocessing = data.good.images.preprocessing.model_copy(update={"upright": data.poses.upright})
    prepared = data.prepared(preprocessing, options, lambda update: notes.extend([update.note] if update.note else []))
    assert len(data.good.paths) == 20
    assert [path.name for path in prepared.good.paths] == [f"{number:03}.png" for number in range(19)]
    assert prepared.good.digests == data.good.digests[1:]
    assert len(prepared.good.thumbnails) == len(prepared.good.facts) == len(prepared.good.images) == 19
    assert prepared.grouping.groups == list(range(19))
    assert (data.rate, prepared.rate) == (0.05, 0.05)
    assert prepared.folds(5, seed=0).count == 5
    [note] = notes
    assert note.startswith("1 of 20 images cannot be brought into the pose of good parts")
    assert note.endswith("a worker gives such images the verdict review, so they are left out")


def test_a_pose_that_few_parts_have_is_refused(posed: Path) -> None:
    data, _ = read(posed)
    assert data.poses is not None
    larger = data.poses.upright.model_copy(update={"length": 2 * data.poses.upright.length})
    preprocessing = data.good.images.preprocessing.model_copy(update={"upright": larger})
    with pytest.raises(
        InvalidDataset, match="only 0 of 20 good parts can be brought into one pose: train with --pose as-is"
    ):
        data.prepared(preprocessing, TrainingOptions(**QUICK), lambda _: None)  # type: ignore[arg-type]


def test_images_that_are_prepared_already_are_not_read_again(posed: Path) -> None:
    data, _ = read(posed)
    assert data.prepared(data.good.images.preprocessing, TrainingOptions(**QUICK), lambda _: None) is data  # type: ignore[arg-type]


def test_an_invalid_grouping_option_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="not a valid regular expression"):
        TrainingOptions(group_by="part(")
