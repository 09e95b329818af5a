"""The image store: a folder in which a file is either whole and durable or not there.

Images lie under `YYYY/MM/DD/<sha256>`, by the day (UTC) of their upload; model bundles under `models/<sha256>.tar`;
anomaly maps, heatmaps and reports, which can be made again, under `anomaly-maps/`, `heatmaps/` and `reports/`. What is
being written lies under `tmp/`.
"""

import datetime as dt
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

STAGING = "tmp"


def image_key(day: dt.date, sha256: bytes) -> str:
    """Where an image lies in the store."""
    return f"{day:%Y/%m/%d}/{sha256.hex()}"


def bundle_key(sha256: bytes) -> str:
    """Where the bundle with this manifest digest lies in the store."""
    return f"models/{sha256.hex()}.tar"


def anomaly_map_key(image_sha256: bytes, model_sha256: bytes) -> str:
    """Where the anomaly map lies that this model gives for this image."""
    return f"anomaly-maps/{model_sha256.hex()}/{image_sha256.hex()}.npy"


def heatmap_key(image_sha256: bytes, model_sha256: bytes, score: float, threshold: float) -> str:
    """Where the heatmap lies that this model gives for this image, of this score on the scale of this threshold."""
    scale = hashlib.sha256(f"{score!r} {threshold!r}".encode()).hexdigest()[:16]
    return f"heatmaps/{model_sha256.hex()}/{image_sha256.hex()}-{scale}.png"


def report_key(run_id: UUID, digest: str) -> str:
    """Where the page lies that reports on a run, as it stood when its report had this digest."""
    return f"reports/{run_id}-{digest}.html"


def failure_key(key: str) -> str:
    """Where it is kept why an anomaly map, a heatmap or a page could not be made."""
    return f"{key}.failed"


class Staged:
    """A file that is being received: written and measured, but not yet in its place. Not thread-safe."""

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
        """The open file, for reading back what was written; the position is the reader's to set."""
        return self._file

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def flush(self) -> None:
        """Force the contents to stable storage."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def discard(self) -> None:
        """Give the file up, whether or not it has been published."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class Store:
    """A store in a folder, addressed as `file:///absolute/path`."""

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))
        self._staging = self.root / STAGING
        self._durable_folders: set[Path] = set()
        self._staging.mkdir(parents=True, exist_ok=True)

    def stage(self) -> Staged:
        """A new file to receive data into."""
        return Staged(self._staging / uuid4().hex)

    def publish(self, staged: Iterable[tuple[Staged, str]]) -> None:
        """Put flushed files in their places, whole and durable: renamed, and their folders synced once each."""
        folders = set()
        for one, key in staged:
            target = self.root / key
            self._make_folder(target.parent)
            one.close()
            one.path.replace(target)
            folders.add(target.parent)
        for folder in folders:
            _sync_folder(folder)

    def put(self, key: str, data: bytes) -> None:
        """Write one file durably; a file that is there already is replaced in one step."""
        staged = self.stage()
        try:
            staged.write(data)
            staged.flush()
            self.publish([(staged, key)])
        except BaseException:
            staged.discard()
            raise

    def read(self, key: str) -> bytes:
        """The bytes of one file. Raises FileNotFoundError when there is none."""
        return (self.root / key).read_bytes()

    def path(self, key: str) -> Path:
        """Where the file of a key lies, for handing it out without reading it."""
        return self.root / key

    def holds(self, key: str) -> bool:
        return (self.root / key).is_file()

    def check(self) -> None:
        """Raise OSError unless something can be written, durably."""
        staged = self.stage()
        try:
            staged.write(b"linewatch")
            staged.flush()
        finally:
            staged.discard()

    def sweep(self, *, older_than_seconds: float) -> int:
        """Remove what was begun and never published, for example by a process that was killed; return how many."""
        limit = time.time() - older_than_seconds
        stale = [path for path in self._staging.iterdir() if path.stat().st_mtime < limit]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents durable; a folder that was made once is not looked at again."""
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
