"""The image sets of the detection benchmark: solar cells of the package `elpv-dataset`, and folders in MVTec layout."""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.vision.training.dataset import read_mvtec_folder

_TRAINING_SHARE = 0.7
_BLOCKS = 12
_SPLIT_SEED = 12345
"""Seed of the split of the cells into training, development and reported images."""


@dataclass(frozen=True)
class ImageSet:
    """The paths of the images of a set.

    Attributes:
        folder: contains only `train/good`.
        good, defective: test images that the results are reported on.
        development_good, development_defective: test images that the detectors were chosen by; empty if the set played
            no part in that choice.
    """

    name: str
    folder: Path
    good: list[Path]
    defective: list[Path]
    development_good: list[Path]
    development_defective: list[Path]


def prepare_folder(root: Path, work: Path) -> ImageSet:
    """Link the training images of a folder in MVTec layout into `work`. All of its `test/` is reported on.

    Raises:
        InvalidDataset: the folder is not in MVTec layout.
        SystemExit: the folder lacks good or defective test images.
    """
    layout = read_mvtec_folder(root)
    if not layout.test_good or not layout.test_defective:
        raise SystemExit(f"{root} needs images in both test/good and test/<type>")
    folder = work / root.name
    _link(layout.good, folder / "train" / "good", relative_to=root / "train" / "good")
    return ImageSet(root.name, folder, layout.test_good, layout.test_defective, [], [])


def prepare_cells(kind: str, work: Path, *, blocks: bool = False) -> ImageSet:
    """Link the training images of the `mono` or `poly` solar cells into `work`.

    Good cells have a defect probability of 0, defective cells of 1; all others are left out. 70 % of the good cells are
    for training. The other good cells and the defective cells are split in half, always the same way: the detectors
    were chosen by one half, and results are reported on the other. With `blocks`, whole runs of consecutive numbers are
    held out, because neighbours in the list come from the same solar module. No detector was chosen by that split.
    """
    labelled = _labelled(kind)
    good = [path for path, probability in labelled if probability == 0]
    defective = [path for path, probability in labelled if probability == 1]
    random = np.random.default_rng(_SPLIT_SEED)
    if blocks:
        bounds = [len(good) * number // _BLOCKS for number in range(_BLOCKS + 1)]
        held_out = set(random.permutation(_BLOCKS)[: round(_BLOCKS * (1 - _TRAINING_SHARE))].tolist())
        parts: tuple[list[Path], list[Path]] = ([], [])
        for block in range(_BLOCKS):
            parts[block in held_out].extend(good[bounds[block] : bounds[block + 1]])
        folder = work / f"elpv-{kind}-blocks"
        _link(parts[0], folder / "train" / "good")
        return ImageSet(folder.name, folder, parts[1], defective, [], [])
    # Good cells first, then defective ones, from one generator: the default detector was chosen with this split.
    shuffled_good = [good[index] for index in random.permutation(len(good))]
    shuffled_defective = [defective[index] for index in random.permutation(len(defective))]
    training_count = int(_TRAINING_SHARE * len(shuffled_good))
    folder = work / f"elpv-{kind}"
    _link(shuffled_good[:training_count], folder / "train" / "good")
    test_good = shuffled_good[training_count:]
    return ImageSet(
        folder.name, folder, test_good[1::2], shuffled_defective[1::2], test_good[::2], shuffled_defective[::2]
    )


def _labelled(kind: str) -> list[tuple[Path, float]]:
    """Return the path and the labelled defect probability, 0 to 1, of each cell of this kind."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the solar cells are not installed: pip install 'linewatch[demo]'")
    root = Path(spec.submodule_search_locations[0], "data")
    rows = (line.split() for line in (root / "labels.csv").read_text().splitlines())
    return [(root / name, float(probability)) for name, probability, cell_kind in rows if cell_kind == kind]


def _link(images: Sequence[Path], folder: Path, *, relative_to: Path | None = None) -> None:
    """Replace the folder by one with links to the images."""
    if folder.exists():
        shutil.rmtree(folder)
    for image in images:
        link = folder / (image.relative_to(relative_to) if relative_to else image.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.resolve())
