"""Images of one part are grouped by name or similarity, with a note."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.vision.input.thumbnails import Thumbnails
from core.vision.training import grouping
from core.vision.training.grouping import GroupBy, Grouping, InvalidGroups, group_parts

ROOT = Path("/parts")


def similar_parts(parts: int, shots: int, *, noise: float = 0.3, light: float = 4.0, seed: int = 0) -> Thumbnails:
    """Return thumbnails of similar parts that differ in their grain, with several shots in different light."""
    random = np.random.default_rng(seed)
    common = 128 + 40 * np.sin(np.arange(256) / 7)
    grain = np.repeat(random.normal(0, 3, (parts, 256)), shots, axis=0)
    each = random.normal(0, noise, grain.shape) + random.normal(0, light, (len(grain), 1))
    thumbnails: Thumbnails = (common + grain + each).clip(0, 255).astype(np.float32)
    return thumbnails


def group_by_similarity(thumbnails: Thumbnails, digests: list[str] | None = None) -> Grouping:
    names = [f"{index:06}.png" for index in range(len(thumbnails))]
    return group_parts([ROOT / name for name in names], ROOT, digests or names, thumbnails, None)


@pytest.mark.parametrize("parts", [20, 400])
def test_parts_that_look_alike_are_not_grouped(parts: int) -> None:
    assert group_by_similarity(similar_parts(parts, 1)) == Grouping(list(range(parts)), 0, [])


@pytest.mark.parametrize("method", ["all pairs", "cells"])
@pytest.mark.parametrize(("parts", "shots"), [(10, 2), (60, 4), (600, 3)])
def test_shots_of_one_part_are_grouped_and_noted(
    parts: int, shots: int, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "cells":
        monkeypatch.setattr(grouping, "_EXACT", 8)
    grouped = group_by_similarity(similar_parts(parts, shots))
    assert grouped.groups == [index // shots for index in range(parts * shots)]
    assert grouped.near_duplicates == parts * shots
    [note] = grouped.notes
    assert f"{parts * shots} of {parts * shots} images look like several shots" in note
    assert f"in {parts} groups" in note
    assert "--group-by" in note


def test_only_some_of_many_have_a_second_shot() -> None:
    images = similar_parts(200, 1)
    again = images[:7] + np.random.default_rng(9).normal(0, 0.3, (7, 256)).astype(np.float32) + 5
    grouping = group_by_similarity(np.concatenate([images, again]))
    assert (grouping.count, grouping.near_duplicates) == (200, 14)
    assert grouping.groups[200:] == list(range(7))


def test_if_all_images_look_alike_none_are_grouped_and_a_note_says_so() -> None:
    drift = np.linspace(0, 1, 100)[:, None] * np.linspace(-50, 50, 256)[None, :]
    grouping = group_by_similarity((128 + drift).astype(np.float32))
    assert (grouping.groups, grouping.near_duplicates) == (list(range(100)), 0)
    assert "100 of 100 would count as one part" in grouping.notes[0]


def test_copies_are_grouped_without_a_note() -> None:
    images = similar_parts(40, 1)[[*range(40), 3, 3]]
    grouping = group_by_similarity(images, [*map(str, range(40)), "3", "3"])
    assert grouping == Grouping([*range(40), 3, 3], 0, [])


@pytest.mark.parametrize("images", [np.zeros((0, 256)), np.zeros((1, 256)), np.zeros((5, 256)), np.zeros((5, 4))])
def test_images_without_content_are_not_grouped(images: NDArray[np.float64]) -> None:
    assert group_by_similarity(images.astype(np.float32)).groups == list(range(len(images)))


def group_by_name(names: list[str], by: str, digests: list[str] | None = None) -> Grouping:
    images = np.zeros((len(names), 4), np.float32)
    return group_parts([ROOT / name for name in names], ROOT, digests or names, images, GroupBy.parse(by))


@pytest.mark.parametrize("by", [r"part(\d+)_", r"part(?P<part>\d+)_", r"(x)?(?P<lot>part\d+)"])
def test_a_pattern_extracts_the_part(by: str) -> None:
    grouping = group_by_name(["train/good/part1_a.png", "train/good/part2_a.png", "train/good/part1_b.png"], by)
    assert grouping == Grouping([0, 1, 0], 0, [])


def test_copies_merge_the_parts_of_a_pattern() -> None:
    grouping = group_by_name(["1_a.png", "1_b.png", "2_a.png", "3_a.png"], r"(\d)_", ["x", "y", "x", "z"])
    assert grouping.groups == [0, 0, 0, 1]


def test_a_pattern_that_groups_nothing_is_noted() -> None:
    grouping = group_by_name(["1.png", "2.png"], r"(\d)")
    assert grouping.groups == [0, 1]
    assert "puts no two different images together" in grouping.notes[0]


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("part(", "not a valid regular expression"),
        (r"part\d+", "has no group"),
        ("lots.csv", "lots.csv:COLUMN"),
        (r"lot(\d+)", "gives the part or lot of none of the 2 images, but not, for example, of 1_a.png"),
        (r"(1)_", "of 1 of the 2 images, but not, for example, of 2_a.png"),
        (r"(1)?_", "of 1 of the 2 images"),
        ("nowhere.csv:lot", "nowhere.csv does not exist"),
    ],
)
def test_a_pattern_that_matches_no_part_is_refused(by: str, reason: str) -> None:
    with pytest.raises(InvalidGroups) as refused:
        group_by_name(["1_a.png", "2_a.png"], by)
    assert reason in str(refused.value)


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
def test_a_table_assigns_the_lot(tmp_path: Path, rows: str) -> None:
    file = tmp_path / "lots.csv"
    file.write_text(rows, encoding="utf-8", newline="")
    grouping = group_by_name(["train/good/a.png", "train/good/b.png", "train/good/deep/c.png"], f"{file}:lot")
    assert grouping.groups == [0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "has no column 'lot', only none"),
        ("file,batch\na.png,1\n", "has no column 'lot', only file, batch"),
        ("file,lot\na.png,1\n", "of 1 of the 2 images, but not, for example, of good/b.png"),
        ("file,lot\na.png,1\nb.png,\n", "of 1 of the 2 images"),
        ("file,lot\na.png,1\na.png,2\n", "lists a.png twice"),
        ("file,lot\nx/a.png,1\ny/a.png,2\nb.png,1\n", "several images named a.png"),
    ],
    ids=["empty", "column", "missing", "blank", "twice", "ambiguous"],
)
def test_an_incomplete_table_is_refused(tmp_path: Path, rows: str, reason: str) -> None:
    file = tmp_path / "lots.csv"
    file.write_text(rows)
    with pytest.raises(InvalidGroups) as refused:
        group_by_name(["good/a.png", "good/b.png"], f"{file}:lot")
    assert reason in str(refused.value)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lots.csv"
    file.write_bytes(b"file,lot\na.png,\xff\n")
    with pytest.raises(InvalidGroups, match="not a CSV file in UTF-8"):
        group_by_name(["a.png"], f"{file}:lot")
