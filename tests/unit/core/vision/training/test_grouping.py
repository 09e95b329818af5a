"""What belongs together is found by name or by looks, and said."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.vision.input.thumbnails import Thumbnails
from core.vision.training import grouping
from core.vision.training.grouping import GroupBy, Grouping, InvalidGroups, effective_sample_size, group_parts

ROOT = Path("/parts")


def fixtured(parts: int, shots: int, *, noise: float = 0.3, light: float = 4.0, seed: int = 0) -> Thumbnails:
    """Parts that all look alike but for their own grain, each with several shots in another light."""
    random = np.random.default_rng(seed)
    common = 128 + 40 * np.sin(np.arange(256) / 7)
    own = np.repeat(random.normal(0, 3, (parts, 256)), shots, axis=0)
    each = random.normal(0, noise, own.shape) + random.normal(0, light, (len(own), 1))
    made: Thumbnails = (common + own + each).clip(0, 255).astype(np.float32)
    return made


def of(thumbnails: Thumbnails, digests: list[str] | None = None) -> Grouping:
    names = [f"{index:06}.png" for index in range(len(thumbnails))]
    return group_parts([ROOT / name for name in names], ROOT, digests or names, thumbnails, None)


@pytest.mark.parametrize("parts", [20, 400])
def test_parts_that_are_alike_by_nature_are_not_taken_for_one(parts: int) -> None:
    assert of(fixtured(parts, 1)) == Grouping(list(range(parts)), 0, [])


@pytest.mark.parametrize("method", ["all pairs", "cells"])
@pytest.mark.parametrize(("parts", "shots"), [(10, 2), (60, 4), (600, 3)])
def test_shots_of_one_part_are_kept_together_and_said(
    parts: int, shots: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "cells":
        monkeypatch.setattr(grouping, "_EXACT", 8)
    found = of(fixtured(parts, shots))
    assert found.groups == [index // shots for index in range(parts * shots)]
    assert found.near_duplicates == parts * shots
    [note] = found.notes
    assert f"{parts * shots} of {parts * shots} images look like several shots" in note
    assert f"in {parts} groups" in note
    assert "--group-by" in note


def test_only_some_of_many_have_a_second_shot() -> None:
    images = fixtured(200, 1)
    again = images[:7] + np.random.default_rng(9).normal(0, 0.3, (7, 256)).astype(np.float32) + 5
    found = of(np.concatenate([images, again]))
    assert (found.count, found.near_duplicates) == (200, 14)
    assert found.groups[200:] == list(range(7))


def test_where_everything_is_alike_nothing_is_joined_and_that_is_said() -> None:
    drift = np.linspace(0, 1, 100)[:, None] * np.linspace(-50, 50, 256)[None, :]
    found = of((128 + drift).astype(np.float32))
    assert (found.groups, found.near_duplicates) == (list(range(100)), 0)
    assert "100 of 100 would count as one part" in found.notes[0]


def test_copies_stay_together_without_a_note() -> None:
    images = fixtured(40, 1)[[*range(40), 3, 3]]
    found = of(images, [*map(str, range(40)), "3", "3"])
    assert found == Grouping([*range(40), 3, 3], 0, [])


@pytest.mark.parametrize("images", [np.zeros((0, 256)), np.zeros((1, 256)), np.zeros((5, 256)), np.zeros((5, 4))])
def test_images_without_content_are_all_different(images: NDArray[np.float64]) -> None:
    assert of(images.astype(np.float32)).groups == list(range(len(images)))


@pytest.mark.parametrize(
    ("groups", "worth"), [([1, 2, 3], 3), ([1, 1, 2, 2], 2), ([1, 1, 1, 2], 1.6), ([5], 1), ([5, 5, 5], 1)]
)
def test_a_sample_is_worth_as_many_parts_as_it_shows(groups: list[int], worth: float) -> None:
    assert effective_sample_size(groups) == pytest.approx(worth)


def named(names: list[str], by: str, digests: list[str] | None = None) -> Grouping:
    images = np.zeros((len(names), 4), np.float32)
    return group_parts([ROOT / name for name in names], ROOT, digests or names, images, GroupBy.parse(by))


@pytest.mark.parametrize("by", [r"part(\d+)_", r"part(?P<part>\d+)_", r"(x)?(?P<lot>part\d+)"])
def test_a_pattern_names_the_part(by: str) -> None:
    found = named(["train/good/part1_a.png", "train/good/part2_a.png", "train/good/part1_b.png"], by)
    assert found == Grouping([0, 1, 0], 0, [])


def test_copies_join_the_parts_that_a_pattern_tells_apart() -> None:
    assert named(["1_a.png", "1_b.png", "2_a.png", "3_a.png"], r"(\d)_", ["x", "y", "x", "z"]).groups == [0, 0, 0, 1]


def test_a_pattern_that_joins_nothing_is_remarked_upon() -> None:
    found = named(["1.png", "2.png"], r"(\d)")
    assert found.groups == [0, 1]
    assert "puts no two different images together" in found.notes[0]


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("part(", "no regular expression"),
        (r"part\d+", "has no group"),
        ("lots.csv", "lots.csv:COLUMN"),
        (r"lot(\d+)", "tells the part or lot of none of the 2 images; not, for example, of 1_a.png"),
        (r"(1)_", "of 1 of the 2 images; not, for example, of 2_a.png"),
        (r"(1)?_", "of 1 of the 2 images"),
        ("nowhere.csv:lot", "there is no nowhere.csv"),
    ],
)
def test_what_tells_no_part_is_refused(by: str, why: str) -> None:
    with pytest.raises(InvalidGroups) as refused:
        named(["1_a.png", "2_a.png"], by)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "rows",
    [
        "file,lot\ntrain/good/a.png,L1\ntrain/good/b.png,L2\ntrain/good/deep/c.png,L1\n",
        "lot,path\nL1,a.png\nL2,b.png\nL1,deep/c.png\n",
        "image,lot\nelsewhere/a.png,L1\nelsewhere/b.png,L2\nc.png,L1\n",
        '\ufefffile,lot,more\n"a.png", L1 ,x\nb.png,L2,\n./c.png,L1,\n\n',
        "file,lot\r\ngood\\a.png,L1\r\ngood\\b.png,L2\r\nc.png,L1\r\nunknown.png,L9\r\n",
    ],
    ids=["full", "short", "elsewhere", "excel", "windows"],
)
def test_a_table_names_the_lot(tmp_path: Path, rows: str) -> None:
    file = tmp_path / "lots.csv"
    file.write_text(rows, encoding="utf-8", newline="")
    assert named(["train/good/a.png", "train/good/b.png", "train/good/deep/c.png"], f"{file}:lot").groups == [0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("", "has no column 'lot', only none"),
        ("file,batch\na.png,1\n", "has no column 'lot', only file, batch"),
        ("file,lot\na.png,1\n", "of 1 of the 2 images; not, for example, of good/b.png"),
        ("file,lot\na.png,1\nb.png,\n", "of 1 of the 2 images"),
        ("file,lot\na.png,1\na.png,2\n", "names a.png twice"),
        ("file,lot\nx/a.png,1\ny/a.png,2\nb.png,1\n", "several images a.png"),
    ],
    ids=["empty", "column", "missing", "blank", "twice", "ambiguous"],
)
def test_a_table_that_does_not_tell_is_refused(tmp_path: Path, rows: str, why: str) -> None:
    file = tmp_path / "lots.csv"
    file.write_text(rows)
    with pytest.raises(InvalidGroups) as refused:
        named(["good/a.png", "good/b.png"], f"{file}:lot")
    assert why in str(refused.value)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lots.csv"
    file.write_bytes(b"file,lot\na.png,\xff\n")
    with pytest.raises(InvalidGroups, match="no CSV file in UTF-8"):
        named(["a.png"], f"{file}:lot")
