"""Reading a folder in MVTec layout: `train/good/*`, optionally `test/<type>/*` and `ground_truth/`.

The layout is that of Bergmann et al., "MVTec AD" (CVPR 2019). `ground_truth/` is not needed and not read.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.pictures import Undecodable
from core.vision.preprocessing import Preprocessing, prepare

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_MEMORY_BYTES = 1024**3


class InvalidFolder(ValueError):  # noqa: N818 - it reads as what it is
    """A folder that cannot be trained from; the message is one line that says what to do."""


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder in MVTec layout, by path, in the order of their names.

    Attributes:
        good: `train/good/*`, and deeper.
        test_good: `test/good/*`.
        test_defective: `test/<any other type>/*`.
    """

    good: list[Path]
    test_good: list[Path]
    test_defective: list[Path]


class PictureSet:
    """Prepared pictures of a folder: `core.vision.detector.Pictures`."""

    def __init__(self, pictures: NDArray[np.uint8]) -> None:
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """All pictures, or those of `order`, `size` at a time: uint8, (n, height, width, 3)."""
        chosen = range(len(self)) if order is None else order
        for start in range(0, len(chosen), size):
            yield self._pictures[list(chosen[start : start + size])]


@dataclass(frozen=True)
class Loaded:
    """Prepared pictures, and what could not be read.

    Attributes:
        paths: of the N readable pictures, in order.
        pictures: uint8, (N, height, width, 3).
        unreadable: paths and reasons of the others.
    """

    paths: list[Path]
    pictures: NDArray[np.uint8]
    unreadable: list[tuple[Path, str]]


@dataclass(frozen=True)
class Split:
    """Indices of good pictures, disjoint and each in ascending order.

    Attributes:
        training: what the network sees.
        validation: what tells when to stop.
        calibration: held out from both; only the threshold comes from it.
    """

    training: list[int]
    validation: list[int]
    calibration: list[int]


def read_layout(root: Path) -> Folder:
    """Find the pictures of a folder in MVTec layout. Hidden files and other suffixes are left out.

    Raises:
        InvalidFolder: it has no `train/good`, or no pictures in it.
    """
    if not root.is_dir():
        raise InvalidFolder(f"{root} is not a folder: name one that holds train/good/")
    good_folder = root / "train" / "good"
    if not good_folder.is_dir():
        raise InvalidFolder(f"{root} has no folder train/good: put the pictures of good parts there")
    good = _pictures_in(good_folder)
    if not good:
        raise InvalidFolder(
            f"{good_folder} holds no pictures: put JPEG, PNG, BMP, WebP or TIFF files of good parts there"
        )
    test = root / "test"
    kinds = sorted(path for path in test.iterdir() if path.is_dir()) if test.is_dir() else []
    defective = [path for kind in kinds if kind.name != "good" for path in _pictures_in(kind)]
    return Folder(good, _pictures_in(test / "good"), defective)


def _pictures_in(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def load_pictures(
    paths: Sequence[Path], preprocessing: Preprocessing, *, max_pixels: int, progress: Callable[[int], None]
) -> Loaded:
    """Prepare pictures in parallel, once; more than fit well in memory are kept in a temporary file.

    One that cannot be decoded is left out and reported, as on the line it would fail alone.

    Args:
        progress: is told how many have been read.

    Raises:
        OSError: a file cannot be read.
    """
    pictures = _room(len(paths), preprocessing)

    def attempt(index: int) -> str | None:
        try:
            pictures[index] = prepare(paths[index].read_bytes(), preprocessing, max_pixels=max_pixels)
        except Undecodable as error:
            return error.detail
        return None

    readable: list[int] = []
    unreadable: list[tuple[Path, str]] = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for index, reason in enumerate(pool.map(attempt, range(len(paths)))):
            if reason is None:
                readable.append(index)
            else:
                unreadable.append((paths[index], reason))
            progress(index + 1)
    for place, index in enumerate(readable):
        if place != index:
            pictures[place] = pictures[index]
    return Loaded([paths[index] for index in readable], pictures[: len(readable)], unreadable)


def _room(count: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    shape = (count, preprocessing.height, preprocessing.width, 3)
    if math.prod(shape) <= _MEMORY_BYTES:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping keeps it alive
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def content_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256, in hexadecimal, of each file."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def set_digest(root: Path, paths: Sequence[Path], digests: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, over the content's digest and the name (relative to the folder) of each picture."""
    lines = (f"{d}  {path.relative_to(root).as_posix()}\n" for path, d in zip(paths, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def split(digests: Sequence[str], *, seed: int, validation: float, calibration: float, least_calibration: int) -> Split:
    """Split good pictures by a seed; copies of one picture, by their SHA-256, stay on one side.

    Args:
        digests: of the N pictures' contents.
        validation, calibration: shares of N, 0 to 1; at least one picture to validate and `least_calibration` to
            calibrate are taken.

    Raises:
        InvalidFolder: too few pictures are left to train on.
    """
    count = len(digests)
    for_calibration = max(round(count * calibration), least_calibration)
    for_validation = max(round(count * validation), 1)
    groups: dict[str, list[int]] = {}
    for index, content in enumerate(digests):
        groups.setdefault(content, []).append(index)
    distinct = list(groups.values())
    shuffled = [distinct[index] for index in np.random.default_rng(seed).permutation(len(distinct))]
    parts: list[list[int]] = [[], [], []]
    wanted = (for_calibration, for_validation)
    for group in shuffled:
        open_part = next((part for part in (0, 1) if len(parts[part]) < wanted[part]), 2)
        parts[open_part].extend(group)
    calibrating, validating, training = (sorted(part) for part in parts)
    if not training:
        raise InvalidFolder(
            f"{count} pictures of good parts ({len(groups)} different) are too few: {for_calibration} are held out "
            f"to calibrate and {for_validation} to validate; add pictures, or wish for a higher false-reject rate"
        )
    return Split(training, validating, calibrating)
