"""The journal of a folder's submission: what was sent and accepted, so that a second run continues.

It is a file of JSON lines. A burst is recorded with its `Idempotency-Key` before it is sent, and again once it is
accepted. If a burst got no answer, because the process or the connection ended first, it may have been accepted. It is
sent again unchanged under the same key, which prevents duplicates.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from linewatch.cli.cache import name_for
from linewatch.cli.failures import CommandFailed
from linewatch.cli.stamps import Stamp


@dataclass(frozen=True)
class Accepted:
    """The inspection and the batch of an accepted image."""

    inspection_id: str
    batch_id: str


class Journal:
    """The journal of one folder, for one recipe and one set of fields. Safe to use from several threads."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read the journal. `file` is open for reading and appending; the caller closes it.

        Raises:
            ValueError: the file is not a journal.
        """
        self._file = file
        self._lock = Lock()
        self._bursts: dict[str, list[Stamp]] = {}
        self._accepted: dict[Stamp, Accepted] = {}
        file.seek(0)
        lines, _, _ = file.read().rpartition(b"\n")  # the write of a last line without an end was interrupted
        file.truncate(len(lines) + 1 if lines else 0)
        for line in lines.splitlines():
            self._apply(json.loads(line))

    def accepted(self, stamp: Stamp) -> Accepted | None:
        """Return the inspection of an accepted image; None if it was not accepted or has changed since."""
        return self._accepted.get(stamp)

    @property
    def batches(self) -> list[str]:
        """The accepted batches, oldest first."""
        return list(dict.fromkeys(accepted.batch_id for accepted in self._accepted.values()))

    @property
    def unanswered(self) -> dict[str, list[Stamp]]:
        """The bursts that got no answer, by key. They may have been accepted."""
        return dict(self._bursts)

    def begin(self, stamps: Sequence[Stamp]) -> str:
        """Record a burst that is about to be sent, and return its key."""
        key = uuid4().hex
        self._write({"begun": key, "images": [list(astuple(stamp)) for stamp in stamps]})
        return key

    def accept(self, key: str, batch_id: str, inspections: Mapping[str, str]) -> None:
        """Record that a burst was accepted, with the ids of its inspections by image name."""
        self._write({"accepted": key, "batch": batch_id, "inspections": dict(inspections)})

    def give_up(self, key: str) -> None:
        """Record that a burst will not be sent again under its key."""
        self._write({"given_up": key})

    def forget(self, batch_id: str) -> None:
        """Record that the system does not know a batch, so its images have to be sent again."""
        self._write({"unknown": batch_id})

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> None:
        if "begun" in entry:
            stamps = entry["images"] if "images" in entry else entry["pictures"]  # the key of older journals
            self._bursts[entry["begun"]] = [Stamp(*fields) for fields in stamps]
        elif "accepted" in entry:
            for stamp in self._bursts.pop(entry["accepted"]):
                if stamp.name in entry["inspections"]:
                    self._accepted[stamp] = Accepted(entry["inspections"][stamp.name], entry["batch"])
        elif "given_up" in entry:
            del self._bursts[entry["given_up"]]
        else:
            unknown = entry["unknown"]
            self._accepted = {
                stamp: accepted for stamp, accepted in self._accepted.items() if accepted.batch_id != unknown
            }


@contextmanager
def opened(journals: Path, about: Mapping[str, Any], *, again: bool) -> Iterator[Journal]:
    """Open a journal in the folder `journals`, locked for this process.

    Args:
        about: the JSON that identifies a submission.
        again: whether to clear the journal.

    Raises:
        CommandFailed: another process has locked the journal, or it cannot be read.
    """
    path = journals / f"{name_for(about)}.jsonl"
    with _locked(path.with_suffix(".lock")), path.open("a+b") as file:
        if again:
            file.truncate(0)
        try:
            journal = Journal(file)
        except (ValueError, KeyError, TypeError) as error:
            raise CommandFailed(f"{path} is damaged ({error}): --again submits everything again") from error
        yield journal


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process. A file of its own: Windows lets nobody read what is locked."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise CommandFailed("another process is submitting this folder: wait until it ends") from None
    try:
        yield
    finally:
        lock.release()
