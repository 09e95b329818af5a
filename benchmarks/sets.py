"""What detection is measured on: the solar cells of the package `elpv-dataset`, and any folder in MVTec layout."""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.vision.training.dataset import read_mvtec_folder

_TRAINED_ON = 0.7
_BLOCKS = 12
_DRAW = 12345
"""Seed of the one draw that decides which cells are trained on, which development and which report may see."""


@dataclass(frozen=True)
class Set:
    """Images by path.

    Attributes:
        name: of the set.
        folder: holds `train/good` and nothing else.
        good, defective: tested, and reported on.
        development_good, development_defective: those by which detectors were chosen; empty for sets that nothing was
            chosen by.
    """

    name: str
    folder: Path
    good: list[Path]
    defective: list[Path]
    development_good: list[Path]
    development_defective: list[Path]


def of_folder(root: Path, work: Path) -> Set:
    """A folder in MVTec layout; all of its `test/` is reported on.

    Raises:
        InvalidDataset: it is not in that layout, or has no test images of both kinds.
    """
    layout = read_mvtec_folder(root)
    if not layout.test_good or not layout.test_defective:
        raise SystemExit(f"{root} needs images in test/good and in test/<type>: there is nothing to measure")
    folder = work / root.name
    _link(layout.good, folder / "train" / "good", relative_to=root / "train" / "good")
    return Set(root.name, folder, layout.test_good, layout.test_defective, [], [])


def elpv(kind: str, work: Path, *, blocks: bool = False) -> Set:
    """Solar cells, `mono` or `poly`: trained on probability 0, tested 0 against 1; the unsure ones are left out.

    Of the functional cells 70 % are trained on. The others, and the defective ones, are halved once and for all:
    detectors were chosen by one half and are reported on the other. With `blocks`, whole runs of consecutive numbers
    are held out, for neighbours in the list come from the same solar module; nothing was chosen by that.
    """
    labelled = _labelled(kind)
    functional = [path for path, probability in labelled if probability == 0]
    defective = [path for path, probability in labelled if probability == 1]
    random = np.random.default_rng(_DRAW)
    if blocks:
        run = [len(functional) * number // _BLOCKS for number in range(_BLOCKS + 1)]
        held_out = set(random.permutation(_BLOCKS)[: round(_BLOCKS * (1 - _TRAINED_ON))].tolist())
        parts: tuple[list[Path], list[Path]] = ([], [])
        for block in range(_BLOCKS):
            parts[block in held_out].extend(functional[run[block] : run[block + 1]])
        folder = work / f"elpv-{kind}-blocks"
        _link(parts[0], folder / "train" / "good")
        return Set(folder.name, folder, parts[1], defective, [], [])
    # Drawn in the order functional, defective, from one generator: the draw by which the default was chosen.
    mixed = [functional[index] for index in random.permutation(len(functional))]
    mixed_defective = [defective[index] for index in random.permutation(len(defective))]
    trained_on = int(_TRAINED_ON * len(mixed))
    folder = work / f"elpv-{kind}"
    _link(mixed[:trained_on], folder / "train" / "good")
    tested = mixed[trained_on:]
    return Set(folder.name, folder, tested[1::2], mixed_defective[1::2], tested[::2], mixed_defective[::2])


def _labelled(kind: str) -> list[tuple[Path, float]]:
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the solar cells are not installed: pip install 'linewatch[demo]'")
    root = Path(found.submodule_search_locations[0], "data")
    rows = (line.split() for line in (root / "labels.csv").read_text().splitlines())
    return [(root / name, float(probability)) for name, probability, own in rows if own == kind]


def _link(images: Sequence[Path], folder: Path, *, relative_to: Path | None = None) -> None:
    """Links to the images in a folder that is made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    for image in images:
        link = folder / (image.relative_to(relative_to) if relative_to else image.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.resolve())
