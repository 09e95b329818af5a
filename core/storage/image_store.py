"""The image store: files under keys, in which every file is complete and durable, or does not exist.

It is a folder (`core.storage.folder_store`) or a prefix of an S3 bucket (`core.storage.bucket_store`); `open_store` in
`core.storage.stores` opens the one of the settings.

Images are stored under `YYYY/MM/DD/<sha256>`, by the day (UTC) of their upload; model bundles under
`models/<sha256>.tar`. Anomaly maps, heatmaps, reports and thumbnails can be regenerated; they are stored under
`anomaly-maps/`, `heatmaps/`, `reports/` and `thumbnails/`, the last by the days of the images. Reports of training runs
are stored under `training-reports/`. In a local folder, `scratch`, files are written under `tmp/` first, and training
runs in progress have a folder each under `trainings/`; the scratch folder of a folder store is the store itself.
"""

import datetime as dt
import hashlib
import logging
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

log = logging.getLogger(__name__)

STAGING = "tmp"
THUMBNAILS = "thumbnails"
GREY_SUFFIX = ".grey"
TRAININGS = "trainings"
BUNDLES, TRAINING_REPORTS = "models", "training-reports"
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
    return f"{BUNDLES}/{sha256.hex()}.tar"


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
    return f"{TRAINING_REPORTS}/{run_id}.html"


def training_folder_key(run_id: UUID) -> str:
    """Store key of the folder of a training run that is in progress: its checkpoints and its drafts."""
    return f"{TRAININGS}/{run_id}"


def failure_key(key: str) -> str:
    """Store key of the error text if an anomaly map, heatmap, report or thumbnail could not be generated."""
    return f"{key}.failed"


class StoreUnavailable(OSError):  # noqa: N818 - it names the state of the store
    """A bucket cannot be read or written now; ENOSPC means that it is full."""


class Staged:
    """A file that is still being received: it is written and hashed, but not yet published. Not thread-safe."""

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        """`synced` is False if the file need not survive a crash of the machine once it is flushed."""
        self._path = path
        self.is_durable = synced
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
        """Write the content to the file, and sync it to disk if it will become a file of the store."""
        self._file.flush()
        if self.is_durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """Close the file, and delete it unless it has been published."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class WholeFile:
    """A file that was written at once, and is not published yet. Not thread-safe."""

    is_durable = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._is_open = True

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Sync the content to disk, and close the file."""
        try:
            os.fsync(self._descriptor)
        finally:
            self.close()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)

    def discard(self) -> None:
        """Close the file, and delete it unless it has been published."""
        self.close()
        self.path.unlink(missing_ok=True)


NewFile = Staged | WholeFile


@dataclass(frozen=True)
class StoredFile:
    """A file of the store, as a listing shows it. `modified_at` is in seconds since 1970."""

    key: str
    size: int
    modified_at: float


class Store(ABC):
    """Files under keys. Thread-safe.

    Keys come from messages, too: every method raises ValueError for a key that does not have the shape of one. If the
    store is unavailable or full, methods raise OSError; ENOSPC or EDQUOT mean that it is full.

    Attributes:
        scratch: a local folder for files that are being received, and for trainings in progress.
        threads: how many files are best written out at the same time.
        share: the fewest files for which one more thread is worth it.
        stages_durably: whether staged files are synced to disk, because they will become files of the store.
        is_local: whether the store is a folder, which is then the scratch folder, too.
    """

    threads: int
    share: int
    stages_durably: bool
    is_local: bool

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._staging = scratch / STAGING
        self._staging.mkdir(parents=True, exist_ok=True)

    def stage(self) -> Staged:
        """Create a local file to receive data."""
        return Staged(self._staging / uuid4().hex, synced=self.stages_durably)

    def stage_whole(self, data: bytes) -> WholeFile:
        """Write a local file at once. It must be written out and moved to its key, or discarded."""
        file = WholeFile(self._staging / uuid4().hex)
        try:
            file.write(data)
        except BaseException:
            file.discard()
            raise
        return file

    # A group of files is stored in three steps, so that its files share the cost of becoming durable.

    @abstractmethod
    def write_out(self, file: NewFile, key: str) -> None:
        """Make the content of one flushed file durable; the first step. Several threads may do this."""

    @abstractmethod
    def move(self, file: NewFile, key: str) -> Path | None:
        """Give one file its key; the second step. Returns the folder to pass to `sync`, if there is one."""

    @abstractmethod
    def sync(self, folders: Iterable[Path]) -> None:
        """Make the moves into these folders durable; the third step."""

    def publish(self, staged: Iterable[tuple[Staged, str]]) -> None:
        """Store flushed files under their keys, durably and in their order."""
        folders = set()
        for file, key in staged:
            self.write_out(file, key)
            folders.add(self.move(file, key))
        self.sync(folder for folder in folders if folder is not None)

    def put(self, key: str, data: bytes) -> None:
        """Write one file durably; an existing file is replaced atomically."""
        self.put_all({key: data})

    @abstractmethod
    def put_all(self, files: Mapping[str, bytes]) -> None:
        """Write files durably, in their order: if the last one is there, so are the others."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The content of one file. Raises FileNotFoundError if it does not exist."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the size of a file in bytes, or None if there is none."""

    def holds(self, key: str) -> bool:
        return self.size(key) is not None

    @abstractmethod
    def local_path(self, key: str, folder: Path) -> Path:
        """The local path of a file that lasts longer than a `with` block; it may be copied into `folder`.

        If the store does not have the file, the path does not exist. Do not change the file.
        """

    @abstractmethod
    def local_file(self, key: str) -> AbstractContextManager[Path]:
        """The local path of a file for a `with` block. If the store does not have the file, the path does not exist."""

    @abstractmethod
    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        """The files whose keys begin with a prefix and a `/`, or all of them, in the order of their keys.

        The cost grows with the files that are taken from the iterator, not with those that exist.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> int:
        """Delete files. Returns how many; those that do not exist may be counted or not."""

    @abstractmethod
    def check(self) -> None:
        """Raise OSError unless a file can be written durably."""

    def link(self, key: str, *, seconds: int) -> str | None:
        """A URL that gives anyone a file for a while; None if the store has no such links."""
        return None

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


def is_key(text: str) -> bool:
    """Whether a text has the shape of a key."""
    return _KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return a key. Raises ValueError unless it has the shape of one: keys come from messages, too."""
    if not is_key(key):
        raise ValueError(f"{key!r} is not a key of the store")
    return key
