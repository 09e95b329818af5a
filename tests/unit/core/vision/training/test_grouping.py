"""Images of one part are grouped by name, with a note; see `test_near_duplicates` for their looks."""

from pathlib import Path

import pytest

from core.vision.training.group_by import GroupBy, InvalidGroups
from core.vision.training.grouping import Grouping, group_by_names

ROOT = Path("/parts")


def group_by_name(names: list[str], by: str, digests: list[str] | None = None) -> Grouping:
    return group_by_names([ROOT / name for name in names], ROOT, digests or names, GroupBy.parse(by))


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


@pytest.mark.parametrize("by", ["(.*)", "(?P<image>.+)"])
def test_a_pattern_that_names_each_image_groups_only_copies_without_a_note(by: str) -> None:
    assert group_by_name(["1.png", "deep/1.png", "2.png"], by) == Grouping([0, 1, 2], 0, [])
    assert group_by_name(["1.png", "2.png", "3.png"], by, ["x", "y", "x"]) == Grouping([0, 1, 0], 0, [])


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
