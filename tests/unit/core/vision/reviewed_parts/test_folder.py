"""The folder that a training from reviews uses: where images are, and which belong together."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.vision.reviewed_parts.folder import ReviewedFolder, make_folder
from core.vision.reviewed_parts.images import Gathered, ReviewedImage, Verdict
from core.vision.training.dataset import InvalidDataset
from core.vision.training.group_by import InvalidGroups
from tests.fixtures.part_images import encoded, part, png, write_folder

Case = tuple[Verdict, str | None, bytes]


def gathered(folder: Path, cases: Sequence[Case], *, missing: int = 0) -> Gathered:
    """Write downloaded images: verdict, part and content of each. Their inspection ids count from 0."""
    folder.mkdir(parents=True)
    files = []
    for number, (verdict, part_id, content) in enumerate(cases):
        parts = frozenset([part_id] if part_id else [])
        sha256 = hashlib.sha256(content).hexdigest()
        image = ReviewedImage(UUID(int=number), verdict, sha256, parts, ".png")
        (folder / image.file_name).write_bytes(content)
        files.append((image, folder / image.file_name))
    return Gathered(files, missing)


def make(
    folder: Path, cases: Sequence[Case], data: Path | None = None, *, group_by: str | None = None, seed: int = 0
) -> ReviewedFolder:
    images = gathered(folder / "images", cases)
    return make_folder(images, data, folder / "made", group_by=group_by, seed=seed, progress=lambda *_: None)


def second_shot(seed: int) -> bytes:
    """Another file than `png(seed)` with the same pixels."""
    return encoded(part(seed), compress_level=1)


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def groups(folder: ReviewedFolder) -> dict[str, str]:
    """The table of groups: the group of each file."""
    assert folder.group_by is not None
    file, _, column = folder.group_by.rpartition(":")
    with Path(file).open(newline="") as lines:
        return {row["file"]: row[column] for row in csv.DictReader(lines)}


def test_reviewed_images_are_named_after_their_inspections(tmp_path: Path) -> None:
    cases: list[Case] = [*(("ok", None, png(seed)) for seed in range(8)), ("ng", None, png(100, scratched=True))]
    made = make(tmp_path, cases)
    assert names(made.root / "test" / "reviewed-ng") == [f"{UUID(int=8)}.png"]
    good = names(made.root / "train" / "good") + names(made.root / "test" / "good")
    assert sorted(good) == [f"reviewed-ok/{UUID(int=number)}.png" for number in range(8)]
    assert (made.reviewed_ok, made.reviewed_ng, made.held_ok) == (8, 1, 2)
    assert (made.train_good, made.test_good, made.test_defective) == (6, 2, 1)
    assert made.group_by is None
    assert made.can_judge
    for path in made.root.rglob("*.png"):
        assert path.read_bytes() == cases[UUID(path.stem).int][2]


def test_without_a_defect_every_good_image_is_trained_on(tmp_path: Path) -> None:
    made = make(tmp_path, [("ok", None, png(500 + seed)) for seed in range(8)], write_folder(tmp_path / "data", good=5))
    assert (made.train_good, made.test_good, made.can_judge) == (13, 0, False)
    assert not (made.root / "test").exists()


def test_another_folder_is_linked_with_its_test_and_its_masks(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", good=30, defective=2)
    (data / "ground_truth" / "scratch").mkdir(parents=True)
    (data / "ground_truth" / "scratch" / "0000_mask.png").write_bytes(png(1))
    made = make(tmp_path, [("ok", "A", png(500)), ("ng", "B", png(501))], data)
    assert (made.held_ordinary, made.held_ok) == (3, 0)
    assert made.test_good == 2 + made.held_ordinary
    held = names(made.root / "test" / "good")
    assert held[:2] == ["0000.png", "0001.png"]
    assert all(name.startswith("train/") for name in held[2:])
    assert names(made.root / "test" / "scratch") == ["0000.png", "0001.png"]
    assert (made.root / "ground_truth" / "scratch" / "0000_mask.png").is_file()
    ordinary = [name for name in names(made.root / "train" / "good") if not name.startswith("reviewed-ok/")]
    assert sorted([*ordinary, *(name.removeprefix("train/") for name in held[2:])]) == [
        f"{n:04}.png" for n in range(30)
    ]
    assert (made.root / "train" / "good" / ordinary[0]).read_bytes() == (data / "train/good" / ordinary[0]).read_bytes()
    assert names(data / "train" / "good") == [f"{n:04}.png" for n in range(30)]  # nothing was moved
    table = groups(made)
    assert sorted(table) == [f"train/good/{name}" for name in names(made.root / "train" / "good")]


parts = st.sampled_from([None, "A", "B", "C", "D", "E", "F"])
reviewed_parts = st.lists(st.tuples(st.sampled_from(["ok", "ng"]), parts), min_size=1, max_size=14)


@settings(max_examples=25)
@given(reviewed_parts, st.booleans(), st.integers(0, 100))
def test_no_part_is_trained_on_and_judged_with(
    drawn: list[tuple[Verdict, str | None]], with_data: bool, seed: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = write_folder(folder / "data", good=4) if with_data else None
        cases: list[Case] = [
            (verdict, part_id, png(1000 + number, scratched=verdict == "ng"))
            for number, (verdict, part_id) in enumerate(drawn)
        ]
        made = make(folder, cases, data, seed=seed)
        sides: dict[str, set[str]] = {}
        for path in made.root.rglob("*.png"):
            side = path.relative_to(made.root).parts[0]
            if path.is_symlink():
                continue
            verdict, part_id, _ = cases[UUID(path.stem).int]
            assert verdict == "ok" or side == "test"
            sides.setdefault(part_id or path.stem, set()).add(side)
        assert all(len(of_part) == 1 for of_part in sides.values())
        assert len(names(made.root)) == len(cases) + 4 * with_data
        if made.group_by is not None:
            of_group: dict[str, set[str]] = {}
            for file, group in groups(made).items():
                if "reviewed-ok" in file and (part_id := cases[UUID(Path(file).stem).int][1]):
                    of_group.setdefault(part_id, set()).add(group)
            assert all(len(of_part) == 1 for of_part in of_group.values())


def test_shots_of_an_unknown_part_stay_together(tmp_path: Path) -> None:
    cases: list[Case] = [("ok", None, content(seed)) for content in (png, second_shot) for seed in range(20)]
    made = make(tmp_path, [*cases, ("ng", None, png(100, scratched=True))])
    for side in (made.root / "train" / "good", made.root / "test" / "good"):
        numbers = {UUID(path.stem).int for path in side.rglob("*.png")}
        assert numbers
        assert all((number + 20) % 40 in numbers for number in numbers)


def test_known_parts_that_look_alike_are_different(tmp_path: Path) -> None:
    cases: list[Case] = [("ok", f"P{seed}", png(seed)) for seed in range(10)]
    cases += [("ok", f"Q{seed}", second_shot(seed)) for seed in range(10)]
    made = make(tmp_path, cases)
    assert len(set(groups(made).values())) == 20


def test_a_review_overrules_the_other_folder(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", good=30, defective=3)
    (data / "train" / "good" / "also.png").write_bytes((data / "test" / "good" / "0001.png").read_bytes())
    cases: list[Case] = [
        ("ng", None, (data / "train" / "good" / "0004.png").read_bytes()),
        ("ok", None, (data / "test" / "scratch" / "0000.png").read_bytes()),
        ("ok", None, (data / "train" / "good" / "0005.png").read_bytes()),
    ]
    made = make(tmp_path, cases, data)
    assert (made.overruled, made.also_in_test) == (2, 1)
    every = names(made.root)
    assert f"test/reviewed-ng/{UUID(int=0)}.png" in every
    assert f"test/good/reviewed-ok/{UUID(int=1)}.png" in every  # it was only for judging before
    assert names(made.root / "test" / "scratch") == ["0001.png", "0002.png"]
    assert not any(name.endswith(("/0004.png", "/0005.png", "also.png")) and "good" in name for name in every)
    contents = [path.read_bytes() for path in made.root.rglob("*.png")]
    assert len(set(contents)) == len(contents)


def test_lots_of_the_other_folder_stay_together(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", good=40)
    made = make(tmp_path, [("ng", "A", png(500))], data, group_by=r"(\d\d)\d\d\.png")
    assert made.held_ordinary == 0  # all belong to one lot, which is larger than a tenth
    made = make(tmp_path / "again", [("ng", "A", png(500))], data, group_by=r"(\d\d\d)\d\.png")
    assert made.held_ordinary == 0
    made = make(tmp_path / "once more", [("ng", "A", png(500))], data, group_by=r"(\d)\.png")
    assert made.held_ordinary == 4
    table = groups(made)
    by_lot: dict[str, set[str]] = {}
    for file, group in table.items():
        by_lot.setdefault(file[-5], set()).add(group)
    assert len(by_lot) == 9
    assert all(len(of_lot) == 1 for of_lot in by_lot.values())


def test_a_wrong_folder_or_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="train/good"):
        make(tmp_path / "first", [("ok", None, png(1))], tmp_path)
    data = write_folder(tmp_path / "data", good=3)
    with pytest.raises(InvalidGroups, match="nobody"):
        make(tmp_path / "second", [("ok", None, png(1))], data, group_by="(nobody)")
