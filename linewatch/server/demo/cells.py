"""The demo's images: monocrystalline solar cells of the ELPV dataset, from the package `elpv-dataset`.

The images (Buerhop-Lutz et al., 2018) are licensed under CC BY-NC-SA 4.0. They are installed separately, never shipped
with Linewatch.
"""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from linewatch.cli.failures import CommandFailed

_FUNCTIONAL, _DEFECTIVE = 0.0, 1.0  # probability of a defect, as labelled by the dataset's experts


@dataclass(frozen=True)
class Cells:
    """The demo's images.

    Functional cells go alternately to training and to the burst, so both come from the same solar modules, like the
    parts of one production line.

    Attributes:
        training: good cells to train on, in `folder`/train/good.
        good, defective: the images of the burst; none of them is used for training.
        unsure: how many cells are left out because the experts were unsure (probability 1/3 or 2/3).
        folder: a dataset in MVTec layout that has only `train/good`.
    """

    training: list[Path]
    good: list[Path]
    defective: list[Path]
    unsure: int
    folder: Path


def link_images(data: Path) -> Cells:
    """Link the installed images into `data`: `cells/train/good`, `burst/good` and `burst/defective`.

    Raises:
        CommandFailed: the package is not installed.
    """
    labelled = _read_labels()
    good = [path for path, probability in labelled if probability == _FUNCTIONAL]
    defective = [path for path, probability in labelled if probability == _DEFECTIVE]
    return Cells(
        training=_link(good[0::2], data / "cells" / "train" / "good"),
        good=_link(good[1::2], data / "burst" / "good"),
        defective=_link(defective, data / "burst" / "defective"),
        unsure=len(labelled) - len(good) - len(defective),
        folder=data / "cells",
    )


def _read_labels() -> list[tuple[Path, float]]:
    """Return the monocrystalline cells and their probability of a defect. Does not import the package."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise CommandFailed("the demo's images are not installed: pip install 'linewatch[demo]'")
    root = Path(spec.submodule_search_locations[0], "data")
    rows = (line.split() for line in (root / "labels.csv").read_text().splitlines())
    return [(root / name, float(probability)) for name, probability, kind in rows if kind == "mono"]


def _link(images: Sequence[Path], folder: Path) -> list[Path]:
    """Create links to the images in a new folder. Replaces an old one, because the installed images may have moved."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    links = []
    for image in images:
        link = folder / image.name
        link.symlink_to(image)
        links.append(link)
    return links
