"""Make a folder in MVTec layout from reviewed images and the good parts of another folder.

Reviewed images are in `train/good/reviewed-ok`, `test/good/reviewed-ok` and `test/reviewed-ng`. Their names are the ids
of their inspections. Files of the other folder keep their relative names; they are links.
"""

import csv
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.vision.detectors.features import input_size
from core.vision.input.record import Preprocessing
from core.vision.reviewed_parts.images import Gathered, ReviewedImage
from core.vision.reviewed_parts.split import Kind, group, hold_out
from core.vision.training.dataset import Folder, file_digests, median_image_size, read, read_mvtec_folder
from core.vision.training.group_by import GroupBy
from core.vision.training.grouping import group_by_names, group_parts

REVIEWED_OK, REVIEWED_NG = "reviewed-ok", "reviewed-ng"
GROUP_COLUMN = "group"

_MAX_PIXELS = 64_000_000

Key = tuple[str, Hashable]


@dataclass
class PartImage:
    """An image of a folder to make.

    Attributes:
        file: the file to move, if it was downloaded, or to link to.
        kind: what it may be used for.
        digest: SHA-256 of the file, in hexadecimal.
        train_name: its name below `train/good`; empty if it is only for judging.
        test_name: its name below `test`.
        parts: the parts or lots that it is known to show; empty if they are unknown.
        keys: what it shares with images that must be on the same side.
        downloaded: whether the file may be moved.
    """

    file: Path
    kind: Kind
    digest: str
    train_name: str
    test_name: str
    parts: frozenset[Hashable] = frozenset()
    keys: set[Key] = field(default_factory=set)
    downloaded: bool = False


@dataclass(frozen=True)
class ReviewedFolder:
    """A folder to train on.

    Attributes:
        root: the folder.
        group_by: which images show the same part, as `--group-by` takes it; None if no part is known.
        trained_on: SHA-256 of each image in `train/good`, in hexadecimal.
        reviewed_ok, reviewed_ng: numbers of reviewed images.
        held_ok: how many of those reviewed ok are in `test/good`.
        held_ordinary: how many images of the other folder's `train/good` were moved to `test/good`.
        overruled: how many files of the other folder were left out because the same image was reviewed otherwise.
        also_in_test: how many files of the other folder's `train/good` were left out because they are also in its
            `test`.
        train_good, test_good, test_defective: numbers of images in the folder.
    """

    root: Path
    group_by: str | None
    trained_on: frozenset[str]
    reviewed_ok: int
    reviewed_ng: int
    held_ok: int
    held_ordinary: int
    overruled: int
    also_in_test: int
    train_good: int
    test_good: int
    test_defective: int

    @property
    def can_judge(self) -> bool:
        """Whether it has good and defective images to judge with."""
        return self.test_good > 0 and self.test_defective > 0


@dataclass(frozen=True)
class SplitImages:
    """Where the images of a folder are.

    Attributes:
        group_by: see `ReviewedFolder`.
        training: in `train/good`.
        judging: in `test`.
    """

    group_by: str | None
    training: list[PartImage]
    judging: list[PartImage]


@dataclass(frozen=True)
class _Sources:
    """All images, and how many files of the other folder were left out; see `ReviewedFolder`."""

    images: list[PartImage]
    overruled: int
    also_in_test: int


def make_folder(
    gathered: Gathered,
    data: Path | None,
    root: Path,
    *,
    group_by: str | None,
    seed: int,
    progress: Callable[[int, int], None],
) -> ReviewedFolder:
    """Make the folder. Moves the downloaded files into it, and writes the table of groups beside it.

    Args:
        data: another folder in MVTec layout; None for none.
        root: the folder to make. It must not exist.
        group_by: which images of `data` show the same part or lot; None to compare them.
        seed: of the split.
        progress: called with the number of images compared so far and of all.

    Raises:
        InvalidDataset: `data` has another layout.
        InvalidGroups: see `core.vision.training.group_by`.
        OSError: a file cannot be read or written.
    """
    sources = _sources(gathered, data, group_by)
    split = split_images(sources.images, root, seed=seed, progress=progress)
    if data is not None and (data / "ground_truth").is_dir():
        (root / "ground_truth").symlink_to((data / "ground_truth").resolve())
    good = [image for image in split.judging if image.kind != "test defective"]
    return ReviewedFolder(
        root=root,
        group_by=split.group_by,
        trained_on=frozenset(image.digest for image in split.training),
        reviewed_ok=sum(reviewed.verdict == "ok" for reviewed, _ in gathered.files),
        reviewed_ng=sum(reviewed.verdict == "ng" for reviewed, _ in gathered.files),
        held_ok=sum(image.downloaded for image in good),
        held_ordinary=sum(image.kind == "ordinary" for image in good),
        overruled=sources.overruled,
        also_in_test=sources.also_in_test,
        train_good=len(split.training),
        test_good=len(good),
        test_defective=len(split.judging) - len(good),
    )


def split_images(
    images: list[PartImage], root: Path, *, seed: int, progress: Callable[[int, int], None]
) -> SplitImages:
    """Make a folder of images to train on and to judge with. No part is on both sides.

    Writes the table of groups beside the folder if the part of any image to train on is known.

    Args:
        images: sets their `keys`.
        root, seed, progress: see `make_folder`.

    Raises:
        OSError: a file cannot be read or written.
    """
    _add_keys(images, root, progress)
    groups = group([image.keys for image in images])
    held = hold_out(groups, [image.kind for image in images], seed=seed)
    judging = [image for image, is_held in zip(images, held, strict=True) if is_held]
    training = [(image, number) for image, number, is_held in zip(images, groups, held, strict=True) if not is_held]
    for image in judging:
        place(image, root / "test" / image.test_name)
    for image, _ in training:
        place(image, root / "train" / "good" / image.train_name)
    group_by = None
    if any(image.parts for image, _ in training):
        rows = [(f"train/good/{image.train_name}", number) for image, number in training]
        group_by = _write_groups(root.with_name(f"{root.name}.csv"), rows)
    return SplitImages(group_by, [image for image, _ in training], judging)


def _sources(gathered: Gathered, data: Path | None, group_by: str | None) -> _Sources:
    """Collect all images. Of the same image, the reviewed one is taken, and then the one in `test`."""
    others = _other_images(data, read_mvtec_folder(data), group_by) if data is not None else []
    in_test = {image.digest for image in others if image.kind != "ordinary"}
    reviewed = [_reviewed_image(each, file, in_test) for each, file in gathered.files]
    is_defective = {image.digest: image.kind == "test defective" for image in reviewed}
    unreviewed = [image for image in others if image.digest not in is_defective]
    used = [image for image in unreviewed if image.kind != "ordinary" or image.digest not in in_test]
    overruled = sum(
        image.digest in is_defective and is_defective[image.digest] != (image.kind == "test defective")
        for image in others
    )
    return _Sources([*reviewed, *used], overruled, len(unreviewed) - len(used))


def _reviewed_image(reviewed: ReviewedImage, file: Path, in_test: Collection[str]) -> PartImage:
    """A downloaded image. One reviewed ok that is also in the other folder's `test` is only for judging."""
    kind: Kind = "test good" if reviewed.sha256 in in_test else "ok"
    folder = f"good/{REVIEWED_OK}"
    if reviewed.verdict == "ng":
        kind, folder = "test defective", REVIEWED_NG
    return PartImage(
        file,
        kind,
        reviewed.sha256,
        train_name=f"{REVIEWED_OK}/{reviewed.file_name}",
        test_name=f"{folder}/{reviewed.file_name}",
        parts=frozenset(("part", part_id) for part_id in reviewed.part_ids),
        downloaded=True,
    )


def _other_images(data: Path, layout: Folder, group_by: str | None) -> list[PartImage]:
    """Return the images of another folder."""
    digests = file_digests(layout.good)
    lots: Sequence[int | None] = [None] * len(layout.good)
    if group_by is not None:
        by = GroupBy.parse(group_by)
        lots = group_by_names(layout.good, data, digests, by).groups
    images = []
    for path, digest, lot in zip(layout.good, digests, lots, strict=True):
        name = path.relative_to(data / "train" / "good").as_posix()
        parts: frozenset[Hashable] = frozenset() if lot is None else frozenset([("lot", lot)])
        images.append(PartImage(path, "ordinary", digest, name, f"good/train/{name}", parts))
    kinds: tuple[tuple[Kind, list[Path]], ...] = (
        ("test good", layout.test_good),
        ("test defective", layout.test_defective),
    )
    for kind, paths in kinds:
        for path, digest in zip(paths, file_digests(paths), strict=True):
            images.append(PartImage(path, kind, digest, "", path.relative_to(data / "test").as_posix()))
    return images


def _add_keys(images: Sequence[PartImage], root: Path, progress: Callable[[int, int], None]) -> None:
    """Set the keys of all images: their content, their parts, and what they look like if a part is unknown.

    Good images that look alike belong together if the part of one of them is unknown. Two known parts are never the
    same. A defect may be small, so a defective part often looks like good ones: looks say nothing about it.
    """
    for image in images:
        image.keys = {("content", image.digest), *(("part", part) for part in image.parts)}
    comparable = [image for image in images if image.kind in ("ordinary", "ok")]
    if all(image.parts for image in comparable):
        return
    by_file = {image.file: image for image in comparable}
    width, height = input_size(median_image_size(list(by_file), max_pixels=_MAX_PIXELS), None)
    read_images = read(
        list(by_file),
        Preprocessing(width=width, height=height, scaled_decode=True),
        max_pixels=_MAX_PIXELS,
        progress=lambda done: progress(done, len(by_file)),
        max_cache_bytes=0,
    )
    alike = group_parts(read_images, root, None).groups
    labelled = [(by_file[path], label) for path, label in zip(read_images.paths, alike, strict=True)]
    with_unknown_part = {label for image, label in labelled if not image.parts}
    for image, label in labelled:
        if label in with_unknown_part:
            image.keys.add(("alike", label))


def place(image: PartImage, path: Path) -> None:
    """Move the file of an image to a path if it was downloaded; otherwise link to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.downloaded:
        image.file.rename(path)
    else:
        path.symlink_to(image.file.resolve())


def _write_groups(file: Path, rows: Sequence[tuple[str, int]]) -> str:
    """Write the table of groups; returns it as `--group-by` takes it."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", GROUP_COLUMN])
        writer.writerows(rows)
    return f"{file}:{GROUP_COLUMN}"
