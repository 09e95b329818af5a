"""Read a folder in MVTec layout: `train/good/*`, optionally `test/<type>/*` and `ground_truth/`.

The layout is that of Bergmann et al., "MVTec AD" (CVPR 2019). Any number of images is first read once from start to
end, to collect the data of each image, and then in minibatches.
"""

import copy
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median_low
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.errors import Refused
from core.intake.image_decoding import Undecodable, read_header
from core.intake.image_formats import has_image_suffix
from core.vision.input.input_checks import ImageMeasurements, measure_image
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.input.spectra import make_spectrum
from core.vision.input.thumbnails import make_thumbnails

MAX_CACHE_BYTES: Final = 1024**3
"""The prepared images of a set are kept in memory if all of them together fit into this."""

_HEADERS = 1000
_THREADS = min(8, os.cpu_count() or 1)
_AHEAD = 4 * _THREADS

Item = TypeVar("Item")
Result = TypeVar("Result")


class InvalidDataset(ValueError):  # noqa: N818 - describes the fault
    """A folder that cannot be used for training. The message is one line that says what to do."""


@dataclass(frozen=True)
class Folder:
    """The paths of the images in a folder in MVTec layout, sorted by name.

    Attributes:
        good: `train/good/**`.
        test_good: `test/good/*`.
        test_defective: `test/<any other type>/*`.
        notes: lines for people about unused content of the folder.
    """

    good: list[Path]
    test_good: list[Path]
    test_defective: list[Path]
    notes: list[str] = field(default_factory=list)


class ImageDataset:
    """Prepared images of files, a `core.vision.training.fit_interface.PreparedImages`.

    Threads decode them a little ahead of the reader. If all images fit in memory, decoded images are kept; otherwise
    they are decoded again each time. The result is the same.

    Attributes:
        paths: the paths of the images, in order.
        preprocessing: of the images.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        *,
        max_pixels: int,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self.paths = list(paths)
        self.preprocessing = preprocessing
        self._max_pixels = max_pixels
        image_bytes = 3 * preprocessing.width * preprocessing.height * preprocessing.dtype.itemsize
        fit = image_bytes * len(self.paths) <= max_cache_bytes
        self._kept: dict[Path, PreparedImage] | None = {} if fit else None

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> "ImageDataset":
        """Return the images with these indices, in this order. Both share the images in memory."""
        subset = copy.copy(self)
        subset.paths = [self.paths[index] for index in indices]
        return subset

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[PreparedImage]:
        """Yield all images, or those with the indices `order`, `size` at a time: (n, height, width, 3).

        Raises:
            InvalidDataset: a file was deleted or has changed since it was first read.
        """
        chosen = self.paths if order is None else [self.paths[index] for index in order]
        if self._kept is not None and all(path in self._kept for path in chosen):
            for start in range(0, len(chosen), size):
                yield np.stack([self._kept[path] for path in chosen[start : start + size]])
            return
        with closing(in_parallel(self._prepared, chosen)) as images:
            while minibatch := list(islice(images, size)):
                yield np.stack(minibatch)

    def keep(self, path: Path, image: PreparedImage) -> None:
        """Keep a prepared image in memory, if there is room for all."""
        if self._kept is not None:
            self._kept[path] = image

    def at_sizes(self, indices: Sequence[int], sizes: Sequence[tuple[int, int]]) -> Iterator[PreparedImage]:
        """Yield images in other sizes, as they were recorded: not prepared in any other way.

        Args:
            indices: of the images, in this order.
            sizes: (width, height) of each, in pixels.

        Raises:
            InvalidDataset: a file was deleted or has changed since it was first read.
        """

        def read_image(wanted: tuple[int, tuple[int, int]]) -> PreparedImage:
            index, (width, height) = wanted
            depth = self.preprocessing.bit_depth
            preprocessing = Preprocessing(width=width, height=height, scaled_decode=True, bit_depth=depth)
            return self._read(self.paths[index], preprocessing)

        with closing(in_parallel(read_image, zip(indices, sizes, strict=True))) as images:
            yield from images

    def _prepared(self, path: Path) -> PreparedImage:
        if self._kept is not None and path in self._kept:
            return self._kept[path]
        image = self._read(path, self.preprocessing)
        self.keep(path, image)
        return image

    def _read(self, path: Path, preprocessing: Preprocessing) -> PreparedImage:
        try:
            return prepare(path.read_bytes(), preprocessing, max_pixels=self._max_pixels).pixels
        except (Undecodable, OSError) as error:
            raise InvalidDataset(
                f"{path} could be read before but not any more: leave the folder alone while it is in use"
            ) from error


@dataclass(frozen=True)
class ScannedImages:
    """The result of reading many files once. All but `unreadable` is about the N readable images, in order.

    Attributes:
        images: the prepared images.
        digests: SHA-256 of each file, in hexadecimal.
        thumbnails: float32, see `core.vision.input.thumbnails.make_thumbnails`.
        spectra: float16, see `core.vision.input.spectra.make_spectrum`.
        deviations: float64, (N,): the standard deviation of each prepared image, 0 to 127.5.
        sizes: (width, height) of each image in pixels, as displayed.
        facts: the measurements of each image; see `core.vision.input.input_checks`.
        reasons: for each image, `core.vision.input.preprocessing.SizedImage.reasons`.
        unreadable: path and reason for each unreadable file.
    """

    images: ImageDataset
    digests: list[str]
    thumbnails: NDArray[np.float32]
    spectra: NDArray[np.float16]
    deviations: NDArray[np.float64]
    sizes: list[tuple[int, int]]
    facts: list[ImageMeasurements]
    reasons: list[tuple[str, ...]]
    unreadable: list[tuple[Path, str]]

    @property
    def paths(self) -> list[Path]:
        """The paths of the N readable images."""
        return self.images.paths

    def subset(self, indices: Sequence[int]) -> "ScannedImages":
        """Return the readable images with these indices, in this order."""
        chosen = list(indices)
        return ScannedImages(
            images=self.images.subset(chosen),
            digests=[self.digests[index] for index in chosen],
            thumbnails=self.thumbnails[chosen],
            spectra=self.spectra[chosen],
            deviations=self.deviations[chosen],
            sizes=[self.sizes[index] for index in chosen],
            facts=[self.facts[index] for index in chosen],
            reasons=[self.reasons[index] for index in chosen],
            unreadable=self.unreadable,
        )


@dataclass(frozen=True)
class _ReadImage:
    digest: str
    thumbnail: NDArray[np.float32]
    spectrum: NDArray[np.float16]
    deviation: float
    size: tuple[int, int]
    facts: ImageMeasurements
    reasons: tuple[str, ...]


def read_mvtec_folder(root: Path) -> Folder:
    """Find the images of a folder in MVTec layout. Hidden files and files without an image suffix are left out.

    Raises:
        InvalidDataset: the folder has no `train/good`, or no images in it.
    """
    if not root.is_dir():
        raise InvalidDataset(f"{root} is not a folder: choose one that contains train/good/")
    good_folder = root / "train" / "good"
    if not good_folder.is_dir():
        raise InvalidDataset(f"{root} has no folder train/good{_describe_layout(root)}")
    good = _images_in(good_folder)
    if not good:
        raise InvalidDataset(
            f"{good_folder} holds no images: put JPEG, PNG, BMP, WebP or TIFF files of good parts there"
        )
    defective = [path for kind in _folders_in(root / "test") if kind.name != "good" for path in _images_in(kind)]
    folder = Folder(good, _images_in(root / "test" / "good"), defective)
    folder.notes.extend(_layout_notes(root, folder))
    return folder


def _describe_layout(root: Path) -> str:
    """Return the end of an error message: what the folder has instead, and what to do about it."""
    if (root / "good").is_dir():
        if root.name == "train":
            return f": name the folder above it, {root.parent}"
        return ", but a folder good: move it to train/good"
    if others := [kind.name for kind in _folders_in(root / "train") if _images_in(kind)]:
        return f", only train/{others[0]}: put the images of good parts into train/good; only these are trained on"
    if (root / "train").is_dir() and _images_in(root / "train"):
        return ", but images in train/: move those of good parts to train/good"
    if count := sum(has_image_suffix(path.name) for path in root.iterdir()):
        return f", but {count} images of its own: move those of good parts to {root / 'train' / 'good'}"
    return ": put the images of good parts there"


def _layout_notes(root: Path, folder: Folder) -> list[str]:
    notes = []
    others = [kind.name for kind in _folders_in(root / "train") if kind.name != "good"]
    if others:
        notes.append(
            f"{root / 'train'} also holds {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}: "
            "only train/good is used"
        )
    if bool(folder.test_good) != bool(folder.test_defective):
        problem = "test/good has no images" if folder.test_defective else "test/ has no images of defective parts"
        notes.append(f"{problem}: detection is not measured")
    return notes


def _folders_in(folder: Path) -> list[Path]:
    """Return the visible subfolders of a folder, sorted by name; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_in(folder: Path) -> list[Path]:
    images = (path for path in folder.rglob("*") if has_image_suffix(path.name) and path.is_file())
    visible = (path for path in images if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def median_image_size(paths: Sequence[Path], *, max_pixels: int) -> tuple[int, int]:
    """Return the median (width, height) of the images in pixels, as displayed. Reads at most about a thousand of them.

    Raises:
        InvalidDataset: none of them has a readable header.
    """
    sizes = []
    for path in paths[:: max(1, len(paths) // _HEADERS)]:
        with path.open("rb") as file:
            try:
                header = read_header(file, max_pixels=max_pixels)
            except Refused:
                continue  # `read` reports it
        sizes.append((header.width, header.height))
    if not sizes:
        raise InvalidDataset(f"none of the {len(paths)} images can be read, the first is {paths[0]}")
    return median_low(width for width, _ in sizes), median_low(height for _, height in sizes)


def read(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    max_pixels: int,
    progress: Callable[[int], None],
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> ScannedImages:
    """Read every file once. Images that cannot be decoded are left out and listed.

    Args:
        progress: called with the number of files read so far.
        max_cache_bytes: see `ImageDataset`.

    Raises:
        OSError: a file cannot be read.
    """
    images = ImageDataset(paths, preprocessing, max_pixels=max_pixels, max_cache_bytes=max_cache_bytes)

    def read_image(path: Path) -> _ReadImage | str:
        data = path.read_bytes()
        try:
            prepared = prepare(data, preprocessing, max_pixels=max_pixels)
        except Undecodable as error:
            return error.detail
        images.keep(path, prepared.pixels)
        return _ReadImage(
            hashlib.sha256(data).hexdigest(),
            make_thumbnails([prepared.pixels])[0],
            make_spectrum(prepared.pixels),
            float(prepared.pixels.std(dtype=np.float64)),
            (prepared.width, prepared.height),
            measure_image(prepared),
            prepared.reasons,
        )

    readable: list[tuple[int, _ReadImage]] = []
    unreadable: list[tuple[Path, str]] = []
    for index, result in enumerate(in_parallel(read_image, paths)):
        if isinstance(result, str):
            unreadable.append((paths[index], result))
        else:
            readable.append((index, result))
        progress(index + 1)
    return ScannedImages(
        images=images.subset([index for index, _ in readable]),
        digests=[image.digest for _, image in readable],
        thumbnails=np.array([image.thumbnail for _, image in readable], dtype=np.float32),
        spectra=np.array([image.spectrum for _, image in readable], dtype=np.float16),
        deviations=np.array([image.deviation for _, image in readable], dtype=np.float64),
        sizes=[image.size for _, image in readable],
        facts=[image.facts for _, image in readable],
        reasons=[image.reasons for _, image in readable],
        unreadable=unreadable,
    )


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """Yield the results in order, computed by threads that stay a little ahead of the consumer."""
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def file_digests(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file, in hexadecimal."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def dataset_digest(root: Path, paths: Sequence[Path], digests: Sequence[str]) -> str:
    """Return the SHA-256, in hexadecimal, of the digests and the relative paths of all images."""
    lines = (f"{d}  {path.relative_to(root).as_posix()}\n" for path, d in zip(paths, digests, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
