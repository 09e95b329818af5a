"""The image sets of the detection benchmark: solar cells of the package `elpv-dataset`, and folders in MVTec layout."""

import importlib.util
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.vision.training.dataset import read_mvtec_folder

_TRAINING_SHARE = 0.7
_BLOCKS = 12
_SPLIT_SEED = 12345
"""Seed of the split of the cells into training, development and reported images."""
_POSE_SEED = 16
_POSED_SIDE = 540
"""Side of a picture of a cell in any pose, in pixels. A cell, 300 pixels, then fills 56 % of the side."""
_POSED_SHIFT = 50
"""Largest shift of such a cell in pixels. Its corners stay 8 pixels or more within the picture."""
_BACKGROUND = (200.0, 4.0)
"""Mean grey level of the even background, and the largest difference of one picture's background from it."""
_BACKGROUND_NOISE = 2.0


@dataclass(frozen=True)
class ImageSet:
    """The paths of the images of a set.

    Attributes:
        folder: contains only `train/good`.
        good, defective: test images that the results are reported on.
        development_good, development_defective: test images that the detectors were chosen by; empty if the set played
            no part in that choice.
        group_by: which training images are of one lot, see `core.vision.training.group_by`; None if new images come
            from the same lots.
    """

    name: str
    folder: Path
    good: list[Path]
    defective: list[Path]
    development_good: list[Path]
    development_defective: list[Path]
    group_by: str | None = None


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
    if blocks:
        good, defective = _labelled(kind, 0), _labelled(kind, 1)
        lots, held_out = _split_into_blocks(good)
        folder = work / f"elpv-{kind}-blocks"
        _link([path for lot in lots for path in lot], folder / "train" / "good")
        return ImageSet(folder.name, folder, [path for block in held_out for path in block], defective, [], [])
    in_training, test_good, defective = _split_by_chance(kind)
    folder = work / f"elpv-{kind}"
    _link(in_training, folder / "train" / "good")
    return ImageSet(folder.name, folder, test_good[1::2], defective[1::2], test_good[::2], defective[::2])


def prepare_cells_in_any_pose(kind: str, work: Path) -> ImageSet:
    """Draw the `mono` or `poly` solar cells turned by 0° to 360° and shifted by chance, below `work`.

    Each picture is a grey PNG of 540 × 540 pixels with one cell, at its own scale, on an even background with a little
    noise. A cell always gets the same pose. Pictures that `work` has already are not drawn again.

    Good cells are split by whole runs of consecutive numbers, because neighbours in the list come from the same solar
    module: eight runs are for training, two for development, and two are reported on. So new cells come from other
    lots than those that were trained on; each run is a folder of its own, to group by. The defective cells, and the
    good ones within these runs, are in the half for development only if they are not reported on in the set of
    `prepare_cells`, and the other way round, so nothing is chosen by a cell that any set reports on.
    """
    _, test_good, defective = _split_by_chance(kind)
    lots, held_out = _split_into_blocks(_labelled(kind, 0))
    middle = len(held_out) // 2
    development = _without([path for block in held_out[:middle] for path in block], test_good[1::2])
    reported = _without([path for block in held_out[middle:] for path in block], test_good[::2])
    folder = work / f"elpv-{kind}-any-pose"
    test = work / f"{folder.name}-test"
    for number, lot in enumerate(lots):
        _draw_in_any_pose(lot, folder / "train" / "good" / f"lot-{number}")
    return ImageSet(
        folder.name,
        folder,
        good=_draw_in_any_pose(reported, test / "good"),
        defective=_draw_in_any_pose(defective[1::2], test / "defective"),
        development_good=_draw_in_any_pose(development, test / "development_good"),
        development_defective=_draw_in_any_pose(defective[::2], test / "development_defective"),
        group_by=r"lot-(\d+)/",
    )


def _split_by_chance(kind: str) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the good cells for training, the other good cells and the defective ones, shuffled always the same way."""
    good, defective = _labelled(kind, 0), _labelled(kind, 1)
    # Good cells first, then defective ones, from one generator: the default detector was chosen with this split.
    random = np.random.default_rng(_SPLIT_SEED)
    shuffled_good = [good[index] for index in random.permutation(len(good))]
    shuffled_defective = [defective[index] for index in random.permutation(len(defective))]
    training_count = int(_TRAINING_SHARE * len(shuffled_good))
    return shuffled_good[:training_count], shuffled_good[training_count:], shuffled_defective


def _split_into_blocks(good: Sequence[Path]) -> tuple[list[list[Path]], list[list[Path]]]:
    """Return the runs of consecutive images for training, and those that are held out."""
    bounds = [len(good) * number // _BLOCKS for number in range(_BLOCKS + 1)]
    blocks = [list(good[start:end]) for start, end in itertools.pairwise(bounds)]
    chosen = np.random.default_rng(_SPLIT_SEED).permutation(_BLOCKS)[: round(_BLOCKS * (1 - _TRAINING_SHARE))]
    held_out = sorted(chosen.tolist())
    return [block for number, block in enumerate(blocks) if number not in held_out], [
        blocks[number] for number in held_out
    ]


def _without(paths: Sequence[Path], excluded: Sequence[Path]) -> list[Path]:
    others = set(excluded)
    return [path for path in paths if path not in others]


def _draw_in_any_pose(cells: Sequence[Path], folder: Path) -> list[Path]:
    """Draw each cell in its pose, unless the folder has it. Return the pictures in the order of the cells."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [folder / cell.name for cell in cells]
    for cell, path in zip(cells, drawn, strict=True):
        if not path.exists():
            number = int("".join(character for character in cell.stem if character.isdigit()))
            _draw_pose(Image.open(cell).convert("L"), np.random.default_rng([_POSE_SEED, number])).save(path)
    return drawn


def _draw_pose(cell: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a grey picture of the cell, turned and shifted by chance on an even background."""
    angle = random.uniform(0, 2 * np.pi)
    centre = _POSED_SIDE / 2 + random.uniform(-_POSED_SHIFT, _POSED_SHIFT, 2)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    margin = 4  # the edge of the cell, repeated, so that the background is mixed into it only by its coverage
    padded = np.pad(np.asarray(cell), margin, mode="edge")
    covered = np.pad(np.full((cell.height, cell.width), 255, np.uint8), margin)
    middle = np.array([cell.width, cell.height]) / 2 + margin
    right, down = middle - np.array([[cosine, sine], [-sine, cosine]]) @ centre
    turn = (cosine, sine, float(right), -sine, cosine, float(down))
    turned, coverage = (
        Image.fromarray(values).transform(
            (_POSED_SIDE, _POSED_SIDE), Image.Transform.AFFINE, turn, Image.Resampling.BICUBIC
        )
        for values in (padded, covered)
    )
    mean, spread = _BACKGROUND
    level = mean + random.uniform(-spread, spread)
    background = random.normal(level, _BACKGROUND_NOISE, (_POSED_SIDE, _POSED_SIDE)).round().clip(0, 255)
    picture = Image.fromarray(background.astype(np.uint8))
    picture.paste(turned, mask=coverage)
    return picture


def _labelled(kind: str, probability: int) -> list[Path]:
    """Return the paths of the cells of this kind with this labelled defect probability, 0 or 1."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the solar cells are not installed: pip install 'linewatch[demo]'")
    root = Path(spec.submodule_search_locations[0], "data")
    rows = (line.split() for line in (root / "labels.csv").read_text().splitlines())
    return [root / name for name, label, cell_kind in rows if cell_kind == kind and float(label) == probability]


def _link(images: Sequence[Path], folder: Path, *, relative_to: Path | None = None) -> None:
    """Replace the folder by one with links to the images."""
    if folder.exists():
        shutil.rmtree(folder)
    for image in images:
        link = folder / (image.relative_to(relative_to) if relative_to else image.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.resolve())
