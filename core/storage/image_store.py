"""The image store: a folder in which every file is complete and durable, or does not exist.

Images are stored under `YYYY/MM/DD/<sha256>`, by the day (UTC) of their upload; model bundles under
`models/<sha256>.tar`. Anomaly maps, heatmaps, reports and thumbnails can be regenerated; they are stored under
`anomaly-maps/`, `heatmaps/`, `reports/` and `thumbnails/`, the last by the days of the images. Reports of training runs
are stored under `training-reports/`; training runs in progress have a folder each under `trainings/`. Files are written
under `tmp/` first.
"""

import datetime as dt
import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

log = logging.getLogger(__name__)

STAGING = "tmp"
THUMBNAILS = "thumbnails"
GREY_SUFFIX = ".grey"
TRAININGS = "trainings"
ANOMALY_MAPS, HEATMAPS, REPORTS = MADE_FOLDERS = ("anomaly-maps", "heatmaps", "reports")

_KEY = re.compile(r"\w+(?:[-./]\w+)*", re.ASCII)


def day_folder(day: dt.date) -> str:
    """Store key of the folder with the images of a day."""
    return f"{day.year:04}/{day.month:02}/{day.day:02}"


def image_key(day: dt.date, sha256: bytes) -> str:
    """Store key of an image."""
    return f"{day_folder(day)}/{sha256.hex()}"


def bundle_key(sha256: bytes) -> str:
    """Store key of a model bundle, by the digest of its manifest."""
    return f"models/{sha256.hex()}.tar"


def anomaly_map_key(image_sha256: bytes, model_sha256: bytes) -> str:
    """Store key of the anomaly map of this model for this image."""
    return f"{ANOMALY_MAPS}/{model_sha256.hex()}/{image_sha256.hex()}.npy"


def heatmap_key(image_sha256: bytes, model_sha256: bytes, score: float, threshold: float) -> str:
    """Store key of the heatmap of this model for this image; score and threshold determine its scale."""
    scale = hashlib.sha256(f"{score!r} {threshold!r}".encode()).hexdigest()[:16]
    return f"{HEATMAPS}/{model_sha256.hex()}/{image_sha256.hex()}-{scale}.png"


def report_key(run_id: UUID, digest: str) -> str:
    """Store key of the HTML report of a run; the digest identifies the version of the report."""
    return f"{REPORTS}/{run_id}-{digest}.html"


def thumbnail_key(day: dt.date, image_sha256: bytes, bit_depth: int | None) -> str:
    """Store key of the thumbnail of an image whose grey levels are scaled by this depth; None for 8-bit images."""
    return f"{THUMBNAILS}/{image_key(day, image_sha256)}{'' if bit_depth is None else f'-{bit_depth}'}.jpg"


def grey_key(thumbnail: str) -> str:
    """Store key of the grey copy that belongs to a thumbnail, by which images are compared."""
    return f"{thumbnail}{GREY_SUFFIX}"


def training_report_key(run_id: UUID) -> str:
    """Store key of the HTML report of a training run."""
    return f"training-reports/{run_id}.html"


def training_folder_key(run_id: UUID) -> str:
    """Store key of the folder of a training run that is in progress: its checkpoints and its drafts."""
    return f"{TRAININGS}/{run_id}"


def failure_key(key: str) -> str:
    """Store key of the error text if an anomaly map, heatmap, report or thumbnail could not be generated."""
    return f"{key}.failed"


class Staged:
    """A file that is still being received: it is written and hashed, but not yet published. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("w+b")
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def path(self) -> Path:
        return self._path

    @property
    def sha256(self) -> bytes:
        return self._hash.digest()

    @property
    def file(self) -> BinaryIO:
        """The open file, to read back its content. Seek before reading."""
        return self._file

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Sync the content to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """Close the file, and delete it unless it has been published."""
        self._file.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True)
class WholeFile:
    """A file that was written at once, and is not published yet."""

    path: Path
    descriptor: int

    def sync(self) -> None:
        """Sync the content to disk, and close the file."""
        try:
            os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)

    def discard(self) -> None:
        """Delete the file unless it has been published."""
        self.path.unlink(missing_ok=True)


class Store:
    """A store in a folder, addressed as `file:///absolute/path`."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))
        self._staging = self.root / STAGING
        self._durable_folders: set[Path] = set()
        self._staging.mkdir(parents=True, exist_ok=True)

    def stage(self) -> Staged:
        """Create a file to receive data."""
        return Staged(self._staging / uuid4().hex)

    def stage_whole(self, data: bytes) -> WholeFile:
        """Write a file at once. It must be synced, then moved to its key or discarded."""
        path = self._staging / uuid4().hex
        file = WholeFile(path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file.descriptor, rest) :]
        except BaseException:
            os.close(file.descriptor)
            file.discard()
            raise
        return file

    def publish(self, staged: Iterable[tuple[Staged, str]]) -> None:
        """Move flushed files to their keys, durably: each file is renamed, each folder synced once."""
        self.sync({self.move(staged_file, key) for staged_file, key in staged})

    def move(self, staged: Staged | WholeFile, key: str) -> Path:
        """Move one flushed file to its key. Returns its folder, which the caller must sync to make this durable."""
        if isinstance(staged, Staged):
            staged.close()
        target = self.path(key)
        folder = target.parent
        self._make_folder(folder)
        try:
            staged.path.replace(target)
        except FileNotFoundError:
            if folder.is_dir():  # the staged file is missing
                raise
            self._durable_folders.clear()  # someone has removed folders
            self._make_folder(folder)
            staged.path.replace(target)
        return folder

    def sync(self, folders: Iterable[Path]) -> None:
        """Make the entries of folders durable."""
        for folder in folders:
            _sync_folder(folder)

    def put(self, key: str, data: bytes) -> None:
        """Write one file durably; an existing file is replaced atomically."""
        self.put_all({key: data})

    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write files durably, in their order: if the last one is there, so are the others."""
        staged: list[tuple[Staged, str]] = []
        try:
            for key, data in files.items():
                staged.append((self.stage(), key))
                staged[-1][0].write(data)
                staged[-1][0].flush()
            self.publish(staged)
        except BaseException:
            for file, _ in staged:
                file.discard()
            raise

    def read(self, key: str) -> bytes:
        """The content of one file. Raises FileNotFoundError if it does not exist."""
        return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """The path of a file, to send it without reading it.

        Raises:
            ValueError: the key does not have the shape of a key: keys come from messages, too.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the store")
        return self.root / key

    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is none."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def holds(self, key: str) -> bool:
        return self.path(key).is_file()

    def names(self, folder: str) -> Iterator[str]:
        """Yield the names of the files in a folder, in any order; none if it does not exist.

        Files may be deleted in the meantime.
        """
        try:
            entries = os.scandir(self.path(folder))
        except FileNotFoundError:
            return
        with entries:
            yield from (entry.name for entry in entries if entry.is_file(follow_symlinks=False))

    def delete(self, key: str) -> bool:
        """Delete a file. Returns False if it does not exist."""
        try:
            self.path(key).unlink()
        except FileNotFoundError:
            return False
        return True

    def remove_empty_folder(self, folder: str) -> None:
        """Remove a folder if it is empty."""
        with suppress(OSError):  # it has files, or does not exist
            self.path(folder).rmdir()

    def check(self) -> None:
        """Raise OSError unless a file can be written durably."""
        staged = self.stage()
        try:
            staged.write(b"linewatch")
            staged.flush()
        finally:
            staged.discard()

    def sweep(self, *, older_than_seconds: float) -> int:
        """Delete old staged files that were never published, for example by a killed process. Returns how many."""
        limit = time.time() - older_than_seconds
        deleted = 0
        for path in self._staging.iterdir():
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
                    deleted += 1
            except FileNotFoundError:  # published or discarded in the meantime
                continue
            except OSError as error:  # not a file of ours
                log.warning("cannot delete %s: %s", path, error.strerror)
        return deleted

    def _make_folder(self, folder: Path) -> None:
        """Create a folder and its parents durably. Folders created before are not checked again."""
        if folder in self._durable_folders:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for ancestor in [folder, *folder.parents]:
            _sync_folder(ancestor)
            if ancestor == self.root:
                break
        self._durable_folders.add(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
