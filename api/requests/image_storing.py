"""Stores the images of a group of requests durably, in a few threads: a disk syncs several files in the time of one."""

import datetime as dt
import hashlib
import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from api.requests.store_refusals import store_refusal
from core.errors import Refused
from core.intake.image_decoding import read_header
from core.intake.submission import NewInspection, StoredImage
from core.storage.image_store import Staged, Store, WholeFile, image_key

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


class _Draft:
    """The images of one request while they are stored: the files, those to sync, and the first error."""

    def __init__(self) -> None:
        self.files: list[tuple[Staged | WholeFile, NewInspection]] = []
        self.unsynced: list[WholeFile] = []
        self.folders: set[Path] = set()
        self.error: Exception | None = None

    def attempt(self, step: Callable[[], None]) -> None:
        """Run a step unless an earlier one failed. An error fails only this request."""
        if self.error is not None:
            return
        try:
            step()
        except OSError as error:
            self.error = store_refusal(error)
        except Refused as refused:
            self.error = refused
        except Exception as error:  # a bug; the other requests of the group are accepted
            log.exception("could not store an image")
            self.error = error

    def sync(self) -> None:
        """Sync and close the new files, all of them even if one fails."""
        for file in self.unsynced:
            try:
                file.sync()
            except OSError as error:
                self.error = store_refusal(error)

    def result(self) -> Stored | Exception:
        if self.error is not None:
            for file, _ in self.files:
                if isinstance(file, WholeFile):
                    file.discard()
            return self.error
        return Stored([new for _, new in self.files], frozenset(self.folders))


class ImageStoring:
    """Stores images. Only one thread may call it."""

    def __init__(self, store: Store, *, max_pixels: int) -> None:
        self._store = store
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(THREADS - 1, thread_name_prefix="sync")

    def stop(self) -> None:
        self._threads.shutdown()

    def store(self, requests: Sequence[Sequence[AnyUpload]]) -> list[Stored | Exception]:
        """Store the images of each request. One whose images cannot be stored does not affect the others."""
        drafts = [self._write(uploads) for uploads in requests]
        self._sync_files([draft for draft in drafts if draft.unsynced])
        for draft in drafts:
            draft.attempt(partial(self._move, draft))
        return self._sync_folders([draft.result() for draft in drafts])

    def _write(self, uploads: Sequence[AnyUpload]) -> _Draft:
        draft = _Draft()
        for upload in uploads:
            draft.attempt(partial(self._write_one, draft, upload))
        return draft

    def _write_one(self, draft: _Draft, upload: AnyUpload) -> None:
        if isinstance(upload, Upload):
            draft.files.append((upload.staged, upload.new))
            return
        content = upload.content
        header = read_header(io.BytesIO(content), max_pixels=self._max_pixels)
        sha256 = hashlib.sha256(content).digest()
        new = upload.new(StoredImage(dt.datetime.now(dt.UTC).date(), sha256, len(content), header))
        file = self._store.stage_whole(content)
        draft.files.append((file, new))
        draft.unsynced.append(file)

    def _sync_files(self, drafts: Sequence[_Draft]) -> None:
        size = max(SHARE, -(-len(drafts) // THREADS))
        others = [
            self._threads.submit(_sync_share, drafts[start : start + size]) for start in range(size, len(drafts), size)
        ]
        _sync_share(drafts[:size])
        for other in others:
            other.result()

    def _move(self, draft: _Draft) -> None:
        for file, new in draft.files:
            draft.folders.add(self._store.move(file, image_key(new.image.day, new.image.sha256)))

    def _sync_folders(self, results: list[Stored | Exception]) -> list[Stored | Exception]:
        """Make the moves durable."""
        try:
            self._store.sync({folder for result in results if isinstance(result, Stored) for folder in result.folders})
        except OSError as error:
            return [store_refusal(error)] * len(results)
        return results


def _sync_share(drafts: Sequence[_Draft]) -> None:
    for draft in drafts:
        draft.sync()
