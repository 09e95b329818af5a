"""Stores the images of a group of requests durably, in threads: a disk or a bucket takes several in the time of one."""

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
from core.intake.image_decoding import Header, read_header
from core.intake.submission import NewInspection, StoredImage
from core.storage.image_store import NewFile, Staged, Store, WholeFile, image_key

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """An image that was received and flushed to stable storage, with its fields."""

    staged: Staged
    new: NewInspection


@dataclass(frozen=True)
class WholeUpload:
    """A small image in memory, which is not stored yet, and how to add its fields.

    Attributes:
        header: if it was read already; else it is read, and so the image checked, with those of its group.
    """

    content: bytes
    new: Callable[[StoredImage], NewInspection]
    header: Header | None = None


AnyUpload = Upload | WholeUpload


@dataclass(frozen=True)
class Stored:
    """The inspections of one request, whose images are moved into the store."""

    inspections: Sequence[NewInspection]
    folders: frozenset[Path]


class _Draft:
    """The images of one request while they are stored, and the first error."""

    def __init__(self) -> None:
        self.files: list[tuple[NewFile, NewInspection]] = []
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

    def result(self) -> Stored | Exception:
        if self.error is not None:
            for file, _ in self.files:
                if isinstance(file, WholeFile):
                    file.discard()
            return self.error
        return Stored([new for _, new in self.files], frozenset(self.folders))


_DraftFile = tuple[_Draft, NewFile, NewInspection]


class ImageStoring:
    """Stores images. Only one thread may call it."""

    def __init__(self, store: Store, *, max_pixels: int) -> None:
        self._store = store
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(store.threads - 1, thread_name_prefix="store")

    def stop(self) -> None:
        self._threads.shutdown()

    def store(self, requests: Sequence[Sequence[AnyUpload]]) -> list[Stored | Exception]:
        """Store the images of each request. One whose images cannot be stored does not affect the others."""
        drafts = [self._write(uploads) for uploads in requests]
        self._write_out([(draft, *each) for draft in drafts for each in draft.files if not each[0].is_durable])
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
        header = upload.header or read_header(io.BytesIO(content), max_pixels=self._max_pixels)
        sha256 = hashlib.sha256(content).digest()
        new = upload.new(StoredImage(dt.datetime.now(dt.UTC).date(), sha256, len(content), header))
        file = self._store.stage_whole(content)
        draft.files.append((file, new))

    def _write_out(self, files: Sequence[_DraftFile]) -> None:
        """Make the contents durable, in as many threads as are worth it."""
        size = max(self._store.share, -(-len(files) // self._store.threads))
        others = [
            self._threads.submit(self._write_share, files[start : start + size])
            for start in range(size, len(files), size)
        ]
        self._write_share(files[:size])
        for other in others:
            other.result()

    def _write_share(self, files: Sequence[_DraftFile]) -> None:
        for draft, file, new in files:
            draft.attempt(partial(self._store.write_out, file, _key(new)))

    def _move(self, draft: _Draft) -> None:
        for file, new in draft.files:
            folder = self._store.move(file, _key(new))
            if folder is not None:
                draft.folders.add(folder)

    def _sync_folders(self, results: list[Stored | Exception]) -> list[Stored | Exception]:
        """Make the moves durable."""
        try:
            self._store.sync({folder for result in results if isinstance(result, Stored) for folder in result.folders})
        except OSError as error:
            return [store_refusal(error)] * len(results)
        return results


def _key(new: NewInspection) -> str:
    return image_key(new.image.day, new.image.sha256)
