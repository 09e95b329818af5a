"""What a folder in MVTec layout is, and how its parts are kept apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision import dataset
from core.vision.dataset import InvalidFolder, content_digests, load_pictures, read_layout, set_digest, split
from core.vision.preprocessing import Preprocessing

SMALL = Preprocessing(width=16, height=16, scaled_decode=False)


def test_the_layout_is_read_in_the_order_of_names(folder: Path) -> None:
    found = read_layout(folder)
    assert [path.name for path in found.good] == [f"{number:03}.png" for number in range(40)]
    assert len(found.test_good) == 8
    assert {path.parent.name for path in found.test_defective} == {"scratch"}


def test_a_folder_without_test_pictures_will_do(part: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "train" / "good" / "deeper").mkdir(parents=True)
    (tmp_path / "train" / "good" / "deeper" / "a.JPG").write_bytes(part(0))
    (tmp_path / "train" / "good" / ".hidden.png").write_bytes(part(0))
    (tmp_path / "train" / "good" / "notes.txt").write_text("x")
    found = read_layout(tmp_path)
    assert [path.name for path in found.good] == ["a.JPG"]
    assert found.test_good == found.test_defective == []


def test_other_folders_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidFolder, match="not a folder"):
        read_layout(tmp_path / "nowhere")
    with pytest.raises(InvalidFolder, match="no folder train/good"):
        read_layout(tmp_path)
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(InvalidFolder, match="holds no pictures"):
        read_layout(tmp_path)


@pytest.mark.parametrize("in_memory", [True, False])
def test_unreadable_pictures_are_left_out_and_named(
    part: Callable[..., bytes], tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setattr(dataset, "_MEMORY_BYTES", 0)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(b"no picture" if number == 1 else part(number))
    seen: list[int] = []
    loaded = load_pictures(paths, SMALL, max_pixels=10**6, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]
    assert loaded.paths == [paths[index] for index in (0, 2, 3, 4)]
    assert loaded.pictures.shape == (4, 16, 16, 3)
    alone = load_pictures([paths[4]], SMALL, max_pixels=10**6, progress=seen.append)
    assert np.array_equal(loaded.pictures[3], alone.pictures[0])
    assert [path for path, _ in loaded.unreadable] == [paths[1]]


def test_the_digest_of_a_set_covers_names_and_contents(folder: Path) -> None:
    paths = read_layout(folder).good
    digests = content_digests(paths)
    whole = set_digest(folder, paths, digests)
    assert whole == set_digest(folder, paths, digests)
    assert whole != set_digest(folder, paths[:-1], digests[:-1])
    assert whole != set_digest(folder, paths, [digests[0], *digests[:-1]])


@given(
    names=st.lists(st.integers(0, 200).map(str), min_size=60, max_size=200),
    seed=st.integers(0, 2**32),
    other=st.booleans(),
)
def test_the_parts_are_disjoint_complete_and_keep_copies_together(names: list[str], seed: int, other: bool) -> None:
    if len(set(names)) < 30:
        return
    found = split(names, seed=seed, validation=0.1, calibration=0.25, least_calibration=19)
    parts = [found.training, found.validation, found.calibration]
    assert sorted(index for part in parts for index in part) == list(range(len(names)))
    contents = [{names[index] for index in part} for part in parts]
    assert not contents[0] & contents[1]
    assert not contents[0] & contents[2]
    assert not contents[1] & contents[2]
    assert len(found.calibration) >= 19
    assert found.validation
    assert found == split(names, seed=seed, validation=0.1, calibration=0.25, least_calibration=19)


def test_copies_of_one_picture_are_too_few() -> None:
    with pytest.raises(InvalidFolder, match="1 different"):
        split(["same"] * 100, seed=0, validation=0.1, calibration=0.25, least_calibration=19)


def test_hidden_folders_and_links_to_nowhere_are_left_out(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    (good / ".cache").mkdir(parents=True)
    (good / ".cache" / "a.png").write_bytes(part(0))
    (good / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InvalidFolder, match="holds no pictures"):
        read_layout(tmp_path)
