"""The folder that a training run trains on: where images are, under which names, and which belong together."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.intake.image_formats import has_image_suffix
from core.vision.training.dataset import read_mvtec_folder
from core.vision.training.group_by import InvalidGroups
from tests.fixtures.part_images import png
from worker.training_runs.data_folder import DataFolder, make_data_folder
from worker.training_runs.run_image import RunImage


def stored(folder: Path, content: bytes, **fields: Any) -> RunImage:
    """Store an image; by default it is an upload to train on."""
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / "store" / sha256
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return RunImage(**{"path": str(path), "sha256": sha256, "suffix": ".png", "label": "good", **fields})


def make(folder: Path, images: Sequence[RunImage], group_by: str | None = None) -> DataFolder:
    return make_data_folder(images, folder / "ring", group_by=group_by, seed=0, progress=lambda *_: None)


def names(folder: DataFolder) -> set[str]:
    return {path.relative_to(folder.root).as_posix() for path in folder.root.rglob("*") if path.is_file()}


def test_uploads_are_where_their_labels_say(tmp_path: Path) -> None:
    images = [stored(tmp_path, b"%d" % number, name=f"{number}.png") for number in range(3)]
    images.append(stored(tmp_path, b"good", name="0.png", label="test/good"))
    images.append(stored(tmp_path, b"scratched", name="0.png", label="test/scratch"))
    images.append(stored(tmp_path, b"another", name="sub\\dir/0.png"))
    Path(images[1].path).unlink()
    made = make(tmp_path, images, r"(\d)\.png")
    twin = f"{images[5].sha256[:12]}/0.png"
    assert names(made) == {
        "train/good/0.png", "train/good/2.png", f"train/good/{twin}", "test/good/0.png", "test/scratch/0.png",
    }  # fmt: skip
    assert (made.group_by, made.can_judge) == (r"(\d)\.png", False)
    assert made.trained_on == {images[index].sha256 for index in (0, 2, 5)}
    assert made.notes == ["1 of 6 images are no longer in the store: they are left out"]


@settings(max_examples=60)
@example([("ä" * 300 + ".png", "good"), ("..", "good"), (".png", "good"), ("a.PNG\n", "test/good")])
@given(st.lists(st.tuples(st.none() | st.text(max_size=300), st.sampled_from(["good", "test/good", "test/a b"]))))
def test_any_file_names_give_one_visible_image_each(drawn: list[tuple[str | None, str]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [
            stored(folder, b"%d" % number, name=file_name, label=label)
            for number, (file_name, label) in enumerate([("first.png", "good"), *drawn])
        ]
        made = make(folder, images)
        found = read_mvtec_folder(made.root)
        labels = [image.label for image in images]
        assert (len(found.good), len(found.test_good), len(found.test_defective)) == (
            labels.count("good"), labels.count("test/good"), labels.count("test/a b"),
        )  # fmt: skip
        for path in (*found.good, *found.test_good, *found.test_defective):
            assert path.resolve().is_relative_to((folder / "store").resolve())
            assert has_image_suffix(path.name)


def test_images_of_inspections_are_split_and_keep_their_parts_together(tmp_path: Path) -> None:
    shots = [
        stored(tmp_path, png(number), inspection_id=f"ok-{number}", part_ids=[f"P{number // 2}"], was_rejected=True)
        for number in range(16)
    ]
    accepted = [
        stored(tmp_path, png(100 + number), inspection_id=f"accepted-{number}", part_ids=[f"A{number}"])
        for number in range(30)
    ]
    defects = [
        stored(tmp_path, png(200 + number, scratched=True), inspection_id=f"ng-{number}", label="test/reviewed-ng")
        for number in range(3)
    ]
    uploads = [stored(tmp_path, png(300 + number), name=f"lot{number % 2}_{number}.png") for number in range(4)]
    made = make(tmp_path, [*shots, *accepted, *defects, *uploads], r"lot(\d)_")
    every = names(made)
    assert len(every) == 16 + 30 + 3 + 4
    assert {f"test/reviewed-ng/ng-{number}.png" for number in range(3)} <= every
    sides = {f"train/good/reviewed-ok/ok-{number}.png" in every for number in range(16)}
    assert sides == {True, False}
    for number in range(0, 16, 2):
        of_part = [f"train/good/reviewed-ok/ok-{shot}.png" in every for shot in (number, number + 1)]
        assert of_part[0] == of_part[1]
    for lot in range(2):
        assert len({f"train/good/lot{lot}_{number}.png" in every for number in (lot, lot + 2)}) == 1
    assert made.can_judge
    assert made.group_by == f"{tmp_path / 'ring.csv'}:group"
    held = sum(name.startswith("test/good/") for name in every)
    assert made.notes == [f"{50 - held} images to train on; to judge with, {held} of good parts and 3 of defects"]
    assert len(made.trained_on) == 50 - held


def test_a_pattern_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    images = [stored(tmp_path, png(1), name="a.png"), stored(tmp_path, png(2), inspection_id="i")]
    with pytest.raises(InvalidGroups, match="nobody"):
        make(tmp_path, images, "(nobody)")
