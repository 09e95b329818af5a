"""Stores the images of a group of requests durably, in a few threads: a disk syncs several files in the time of one."""

import datetime as dt
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from api.requests.store_refusals import store_refusal
from core.errors import Refused
from core.intake.image_decoding import read_header
from core.intake.submission import NewInspection, StoredImage
from core.storage.image_store import Staged, Store, image_key

log = logging.getLogger(__name__)

THREADS = 4
SHARE = 4
"""The fewest requests for which a thread is woken."""


@dataclass(frozen=True)
class Upload:
    """An image that was received and flushed to stable storage, with its fields."""

    staged: Staged
    new: NewInspection


@dataclass(frozen=True)
class WholeUpload:
    """A small image in memory, which is neither checked nor stored yet, and how to add its fields."""

    content: bytes
    new: Callable[[StoredImage], NewInspection]


AnyUpload = Upload | WholeUpload


@dataclass(frozen=True)
class Stored:
    """The inspections of one request, whose images are moved into the store."""

    inspections: Sequence[NewInspection]
    folders: frozenset[Path]


class ImageStoring:
    """Stores images. Only one thread may call it."""

    def __init__(self, store: Store, *, max_pixels: int) -> None:
        self._store = store
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(THREADS - 1, thread_name_prefix="store")

    def stop(self) -> None:
        self._threads.shutdown()

    def store(self, requests: Sequence[Sequence[AnyUpload]]) -> list[Stored | Exception]:
        """Store the images of each request. One whose images cannot be stored does not affect the others."""
        size = max(SHARE, -(-len(requests) // THREADS))
        shares = [requests[start : start + size] for start in range(0, len(requests), size)]
        others = [self._threads.submit(self._store_share, share) for share in shares[1:]]
        results = self._store_share(shares[0])
        for other in others:
            results += other.result()
        return self._sync(results)

    def _sync(self, results: list[Stored | Exception]) -> list[Stored | Exception]:
        """Make the moves durable."""
        try:
            self._store.sync({folder for result in results if isinstance(result, Stored) for folder in result.folders})
        except OSError as error:
            return [store_refusal(error)] * len(results)
        return results

    def _store_share(self, requests: Sequence[Sequence[AnyUpload]]) -> list[Stored | Exception]:
        return [self._store_request(uploads) for uploads in requests]

    def _store_request(self, uploads: Sequence[AnyUpload]) -> Stored | Exception:
        try:
            stored = [self._store_upload(upload) for upload in uploads]
        except OSError as error:
            return store_refusal(error)
        except Refused as refused:
            return refused
        except Exception as error:  # a bug; the other requests of the group are accepted
            log.exception("could not store an image")
            return error
        return Stored([new for new, _ in stored], frozenset(folder for _, folder in stored))

    def _store_upload(self, upload: AnyUpload) -> tuple[NewInspection, Path]:
        if isinstance(upload, Upload):
            key = image_key(upload.new.image.day, upload.new.image.sha256)
            return upload.new, self._store.move(upload.staged, key)
        content = upload.content
        header = read_header(io.BytesIO(content), max_pixels=self._max_pixels)
        sha256 = hashlib.sha256(content).digest()
        image = StoredImage(dt.datetime.now(dt.UTC).date(), sha256, len(content), header)
        new = upload.new(image)
        staged = self._store.stage_whole(content)
        try:
            return new, self._store.move_path(staged, image_key(image.day, sha256))
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
