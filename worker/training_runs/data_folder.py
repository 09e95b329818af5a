"""The folder that a run trains on, in MVTec layout: links to the images in the store, under readable names.

Images of inspections are named after them: those that a person called ok though the machine had rejected them are in
`reviewed-ok`, those that a person called ng in `reviewed-ng`, all others in `inspections`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from core.intake.image_formats import has_image_suffix
from core.training_runs.runs import GOOD
from core.vision.reviewed_parts.folder import REVIEWED_NG, REVIEWED_OK, PartImage, place, split_images
from core.vision.reviewed_parts.split import Kind
from core.vision.training.group_by import GroupBy, names_of_parts
from worker.training_runs.run_image import RunImage

_UNSAFE = re.compile(r"[\x00-\x1f\x7f/]")
_LONGEST_NAME = 150  # bytes


@dataclass(frozen=True)
class DataFolder:
    """A folder to train on.

    Attributes:
        root: the folder.
        group_by: which images show the same part, as `--group-by` takes it; None to compare them.
        can_judge: whether reviewed defects and good parts are in `test`, to choose by.
        trained_on: SHA-256 of each image in `train/good`, in hexadecimal.
        notes: lines for people.
    """

    root: Path
    group_by: str | None
    can_judge: bool
    trained_on: frozenset[str]
    notes: list[str]


def make_data_folder(
    images: Sequence[RunImage],
    root: Path,
    *,
    group_by: str | None,
    seed: int,
    progress: Callable[[int, int], None],
) -> DataFolder:
    """Make the folder. Images that are no longer in the store are left out, with a note.

    Uploaded images are trained on or judged with as they are labelled. As soon as there are images of inspections, no
    part is on both sides, and some good parts are held out if there are defects to judge with.

    Args:
        root: the folder to make. It must not exist.
        group_by: a regular expression for the names of uploaded files.
        seed: of the split.
        progress: called with the number of images compared so far and of all.

    Raises:
        InvalidGroups: see `core.vision.training.group_by`.
        OSError: a file cannot be read or written.
    """
    present = [image for image in images if Path(image.path).is_file()]
    notes = []
    if missing := len(images) - len(present):
        notes.append(f"{missing} of {len(images)} images are no longer in the store: they are left out")
    parts = _name_parts(present)
    if not any(image.inspection_id for image in present):
        for part in parts:
            is_test = part.kind != "ordinary"
            place(part, root / ("test" if is_test else "train/good") / (part.test_name if is_test else part.train_name))
        trained_on = frozenset(part.digest for part in parts if part.kind == "ordinary")
        return DataFolder(root, group_by, False, trained_on, notes)
    if group_by is not None:
        _set_parts(parts, root, group_by)
    split = split_images(parts, root, seed=seed, progress=progress)
    good = sum(part.kind != "test defective" for part in split.judging)
    defective = len(split.judging) - good
    notes.append(
        f"{len(split.training)} images to train on; to judge with, {good} of good parts and {defective} of defects"
    )
    trained_on = frozenset(part.digest for part in split.training)
    return DataFolder(root, split.group_by, good > 0 and defective > 0, trained_on, notes)


def _name_parts(images: Sequence[RunImage]) -> list[PartImage]:
    """Name the images. Of several uploads with the same name, all but the first get a folder of their own."""
    taken: set[str] = set()
    parts = []
    for image in sorted(images, key=lambda image: (image.name or "", image.sha256)):
        kind, folder, name = _place_of(image)
        if f"{folder}/{name}" in taken:
            name = f"{image.sha256[:12]}/{name}"
        taken.add(f"{folder}/{name}")
        parts.append(
            PartImage(
                Path(image.path),
                kind,
                image.sha256,
                train_name=name,
                test_name=f"{folder}/{name}",
                parts=frozenset(("part", part_id) for part_id in image.part_ids),
            )
        )
    return parts


def _place_of(image: RunImage) -> tuple[Kind, str, str]:
    """Return the kind of an image, its folder below `test`, and its name below that and below `train/good`."""
    if image.inspection_id is None:
        name = _file_name(image)
        if image.label == GOOD:
            return "ordinary", "good/train", name
        folder = image.label.removeprefix("test/")
        return ("test good" if folder == "good" else "test defective"), folder, name
    name = f"{image.inspection_id}{image.suffix}"
    if image.label != GOOD:
        return "test defective", REVIEWED_NG, name
    if image.was_rejected:
        return "ok", "good", f"{REVIEWED_OK}/{name}"
    return "ordinary", "good", f"inspections/{name}"


def _file_name(image: RunImage) -> str:
    """The name of an uploaded file without its folders, safe on every file system, with an image suffix."""
    name = PurePosixPath((image.name or "").replace("\\", "/")).name
    name = _UNSAFE.sub("_", name).encode(errors="ignore")[-_LONGEST_NAME:].decode(errors="ignore").lstrip(".")
    name = name or image.sha256[:12]
    return name if has_image_suffix(name) else f"{name}{image.suffix}"


def _set_parts(parts: Sequence[PartImage], root: Path, group_by: str) -> None:
    """Set the part or lot of uploaded good images by their names."""
    uploads = [part for part in parts if part.kind == "ordinary" and not part.train_name.startswith("inspections/")]
    paths = [root / "train" / "good" / part.train_name for part in uploads]
    for part, lot in zip(uploads, names_of_parts(paths, root, GroupBy.parse(group_by)), strict=True):
        part.parts = frozenset([("lot", lot)])
