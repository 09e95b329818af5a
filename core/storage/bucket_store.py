"""An image store in a prefix of an S3 bucket. Credentials, region and endpoint come from the `AWS_*` variables."""

import datetime as dt
import errno
import mimetypes
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError

from core.intake.image_formats import SIGNATURE_BYTES, media_type_of
from core.storage.buckets import connect, parts_of_url, reason
from core.storage.image_store import (
    STAGING,
    NewFile,
    Staged,
    Store,
    StoredFile,
    StoreUnavailable,
    WholeFile,
    check_key,
)

if TYPE_CHECKING:
    from obstore import GetResult

TIMEOUT_SECONDS = 20
RETRY_SECONDS = 10
"""A call fails after about 30 s: a client that waits for its upload should get the refusal before it gives up."""

PAUSE_SECONDS = 1.0
"""After a failure, `write_out` and `size` fail for so long: of many calls, not each waits for the timeout."""

PART_BYTES = 8 * 1024 * 1024
"""Larger files are written and read in parts, so that each request ends within its timeout."""
PARTS_AT_ONCE = 4
_PAGE = 1000  # the most keys that S3 returns per request, and deletes per request

_CHECK = f"{STAGING}/check"
_UNKNOWN = "application/octet-stream"
_FULL = ("507 Insufficient Storage", "StorageFull", "QuotaExceeded")
"""How servers say that a bucket is full: MinIO by `XMinioStorageFull` and `XMinioAdminBucketQuotaExceeded`, Ceph by
`QuotaExceeded`. Amazon's buckets have no limit."""


class BucketStore(Store):
    """A store in a bucket, addressed as `s3://bucket/prefix`.

    A put is durable once the server has answered, and the server has compared the SHA-256 of each request's body.
    """

    threads = 16
    share = 1
    stages_durably = False
    is_local = False

    def __init__(self, url: str, scratch: Path) -> None:
        """Raises ValueError if the URL names no bucket. Does not connect yet."""
        parts = parts_of_url(url)
        if parts is None:
            raise ValueError(f"{url!r} does not look like s3://bucket/prefix")
        self.url = f"s3://{'/'.join(parts)}"
        self._prefix = "".join(f"{part}/" for part in parts[1:])
        self._bucket = connect(parts[0], timeout_seconds=TIMEOUT_SECONDS, retry_seconds=RETRY_SECONDS)
        self._fault = (0, "")
        self._failing_until = 0.0
        super().__init__(scratch)

    def write_out(self, file: NewFile, key: str) -> None:
        """Put the content under its key, where it is visible from now on."""
        if isinstance(file, WholeFile):
            file.close()
        size = file.path.stat().st_size  # FileNotFoundError: the received file is lost, not the bucket
        self._require_no_recent_fault()
        self._put(key, file.path.read_bytes() if size <= PART_BYTES else file.path)

    def move(self, file: NewFile, key: str) -> None:
        file.discard()

    def sync(self, folders: Iterable[Path]) -> None:
        """Do nothing: a put is durable."""

    def publish(self, staged: Iterable[tuple[Staged, str]]) -> None:
        files = list(staged)
        with ThreadPoolExecutor(self.threads) as threads:
            for _ in threads.map(lambda item: self.write_out(*item), files):
                pass
        for file, key in files:
            self.move(file, key)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        for key, data in files.items():
            self._put(key, data)

    def read(self, key: str) -> bytes:
        return b"".join(self._blocks(self._get(key), key))

    def size(self, key: str) -> int | None:
        path = self._path(key)
        self._require_no_recent_fault()
        try:
            with self._faults():
                return self._bucket.head(path)["size"]
        except FileNotFoundError:
            return None

    def local_path(self, key: str, folder: Path) -> Path:
        path = folder / key.replace("/", "-")
        self._download(key, path)
        return path

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        path = self._staging / uuid4().hex
        try:
            self._download(key, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        within = f"{self._prefix}{check_key(prefix)}/" if prefix else self._prefix
        with self._faults():
            for page in self._bucket.list(within or None, chunk_size=_PAGE):
                for listed in page:
                    key = listed["path"].removeprefix(self._prefix)
                    if not key.startswith(f"{STAGING}/"):
                        yield StoredFile(key, listed["size"], listed["last_modified"].timestamp())

    def delete(self, keys: Iterable[str]) -> int:
        paths = [self._path(key) for key in keys]
        for start in range(0, len(paths), _PAGE):
            with self._faults():
                self._bucket.delete(paths[start : start + _PAGE])
        return len(paths)

    def check(self) -> None:
        self._put(_CHECK, b"linewatch")

    def link(self, key: str, *, seconds: int) -> str | None:
        path = self._path(key)
        with self._faults():
            return obstore.sign(self._bucket, "GET", path, dt.timedelta(seconds=seconds))

    def _path(self, key: str) -> str:
        return f"{self._prefix}{check_key(key)}"

    def _put(self, key: str, content: bytes | Path) -> None:
        path = self._path(key)
        try:
            with self._faults():
                self._bucket.put(
                    path,
                    content,
                    attributes={"Content-Type": _media_type(key, content)},
                    chunk_size=PART_BYTES,
                    max_concurrency=PARTS_AT_ONCE,
                )
        except FileNotFoundError as error:
            raise self._unavailable(error) from error

    def _get(self, key: str) -> "GetResult":
        path = self._path(key)
        with self._faults():
            return self._bucket.get(path)

    def _blocks(self, result: "GetResult", key: str) -> Iterator[bytes]:
        """The content, in parts if it is large. The body of `result` is not read then."""
        size = result.meta["size"]
        with self._faults():
            if size <= PART_BYTES:
                yield bytes(result.bytes())
                return
            for start in range(0, size, PART_BYTES):
                yield bytes(self._bucket.get_range(self._path(key), start=start, end=min(start + PART_BYTES, size)))

    def _download(self, key: str, path: Path) -> None:
        """Copy a file, with the time of its upload. If it does not exist, neither does the copy."""
        with suppress(FileNotFoundError):
            result = self._get(key)
            try:
                with path.open("wb") as file:
                    for block in self._blocks(result, key):
                        file.write(block)
                modified_at = result.meta["last_modified"].timestamp()
                os.utime(path, (modified_at, modified_at))
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise StoreUnavailable for faults of the server, and FileNotFoundError only for a missing object."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in f"{error}":
                raise self._unavailable(error) from error
            raise
        except (BaseError, ValueError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        number = errno.ENOSPC if any(sign in f"{error}" for sign in _FULL) else errno.EIO
        fault = number, f"{self.url} cannot be used: {reason(error)}"
        self._fault, self._failing_until = fault, time.monotonic() + PAUSE_SECONDS
        return StoreUnavailable(*fault)

    def _require_no_recent_fault(self) -> None:
        if time.monotonic() < self._failing_until:
            raise StoreUnavailable(*self._fault)


def _media_type(key: str, content: bytes | Path) -> str:
    """The content type of links to a file: by the suffix of its key or, for images, by its first bytes."""
    if by_suffix := mimetypes.guess_type(key)[0]:
        return by_suffix
    if isinstance(content, bytes):
        return media_type_of(content[:SIGNATURE_BYTES]) or _UNKNOWN
    with content.open("rb") as file:
        return media_type_of(file.read(SIGNATURE_BYTES)) or _UNKNOWN
