"""The images of the demo: monocrystalline solar cells of the ELPV dataset, from the package `elpv-dataset`.

The images (Buerhop-Lutz et al., 2018) are CC BY-NC-SA 4.0; they are installed, never shipped with Linewatch.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch.cli.failures import CommandFailed

_FUNCTIONAL, _DEFECTIVE = 0.0, 1.0  # the probability of a defect that the dataset's experts agreed on


@dataclass(frozen=True)
class Cells:
    """The demo's images. Functional cells are taken alternately, so both halves come from the same solar modules,
    as the parts of a line do.

    Attributes:
        training: good cells to learn from; they lie in `folder`/train/good.
        good, defective: the burst; the detector has seen none of them.
        unsure: how many cells the experts were unsure of (probability 1/3 and 2/3); they are left out.
        folder: in MVTec layout, with `train/good` alone.
    """

    training: list[Path]
    good: list[Path]
    defective: list[Path]
    unsure: int
    folder: Path


def lay_out(data: Path) -> Cells:
    """Lay the installed images out in `data`: `cells/train/good`, `burst/good` and `burst/defective`.

    Raises:
        CommandFailed: the package is not installed.
    """
    labelled = _labelled()
    good = [path for path, probability in labelled if probability == _FUNCTIONAL]
    defective = [path for path, probability in labelled if probability == _DEFECTIVE]
    return Cells(
        training=_linked(good[0::2], data / "cells" / "train" / "good"),
        good=_linked(good[1::2], data / "burst" / "good"),
        defective=_linked(defective, data / "burst" / "defective"),
        unsure=len(labelled) - len(good) - len(defective),
        folder=data / "cells",
    )


def _labelled() -> list[tuple[Path, float]]:
    """The monocrystalline cells and their probability of a defect. The package itself is not imported."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or not found.submodule_search_locations:
        raise CommandFailed("the images are not installed: pip install 'linewatch[demo]'")
    root = Path(found.submodule_search_locations[0], "data")
    rows = (line.split() for line in (root / "labels.csv").read_text().splitlines())
    return [(root / name, float(probability)) for name, probability, kind in rows if kind == "mono"]


def _linked(images: Sequence[Path], folder: Path) -> list[Path]:
    """Links to the images in a new folder; the installed ones may have moved."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    links = []
    for image in images:
        link = folder / image.name
        link.symlink_to(image)
        links.append(link)
    return links
