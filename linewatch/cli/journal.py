"""The journal of a folder's submission: what was sent and what was accepted, so that a second run goes on.

It is a file of JSON lines. A burst is entered, with its `Idempotency-Key`, before it is sent, and again once it was
accepted. What was entered and has no answer may have been accepted all the same: the process or the connection ended
before the answer came. It is sent again as it was, under its key, and so it is not doubled.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any
from uuid import uuid4

from linewatch.cli.failures import CommandFailed


@dataclass(frozen=True)
class Stamp:
    """An image's file as it was found; one that was changed has another. `name` is relative to the folder."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Accepted:
    """What an image became."""

    inspection_id: str
    batch_id: str


class Journal:
    """The journal of one folder, under one recipe and with the same fields. Safe to use from several threads."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read what is there; `file` is open for reading and appending, and stays the caller's.

        Raises:
            ValueError: it is no journal.
        """
        self._file = file
        self._lock = Lock()
        self._bursts: dict[str, list[Stamp]] = {}
        self._accepted: dict[Stamp, Accepted] = {}
        file.seek(0)
        whole, _, _ = file.read().rpartition(b"\n")  # a last line without an end was being written
        file.truncate(len(whole) + 1 if whole else 0)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def accepted(self, stamp: Stamp) -> Accepted | None:
        """What an image became that was accepted; None for any other, and for one that was changed since."""
        return self._accepted.get(stamp)

    @property
    def batches(self) -> list[str]:
        """The batches that were accepted, the oldest first."""
        return list(dict.fromkeys(one.batch_id for one in self._accepted.values()))

    @property
    def unanswered(self) -> dict[str, list[Stamp]]:
        """The bursts, by key, of which it is not known whether they were accepted."""
        return dict(self._bursts)

    def begin(self, stamps: Sequence[Stamp]) -> str:
        """Enter a burst that is about to be sent; returns its key."""
        key = uuid4().hex
        self._write({"begun": key, "pictures": [list(astuple(one)) for one in stamps]})
        return key

    def accept(self, key: str, batch_id: str, inspections: Mapping[str, str]) -> None:
        """Enter what became of a burst: the ids of its inspections, by the names of the images."""
        self._write({"accepted": key, "batch": batch_id, "inspections": dict(inspections)})

    def give_up(self, key: str) -> None:
        """Enter that a burst will not be sent again as it was."""
        self._write({"given_up": key})

    def forget(self, batch_id: str) -> None:
        """Enter that the system does not know a batch: its images were not accepted by this one."""
        self._write({"unknown": batch_id})

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if "begun" in entry:
            self._bursts[entry["begun"]] = [Stamp(*one) for one in entry["pictures"]]
        elif "accepted" in entry:
            for stamp in self._bursts.pop(entry["accepted"]):
                if stamp.name in entry["inspections"]:
                    self._accepted[stamp] = Accepted(entry["inspections"][stamp.name], entry["batch"])
        elif "given_up" in entry:
            del self._bursts[entry["given_up"]]
        else:
            unknown = entry["unknown"]
            self._accepted = {stamp: one for stamp, one in self._accepted.items() if one.batch_id != unknown}


@contextmanager
def opened(journals: Path, about: Mapping[str, Any], *, again: bool) -> Iterator[Journal]:
    """The journal of what `about` describes, in the folder `journals`, locked for this process.

    Args:
        about: what makes two submissions the same, as JSON; the journal's name is made of it.
        again: whether to forget what is in it.

    Raises:
        CommandFailed: another process has it, or it cannot be read.
    """
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    path = journals / f"{name}.jsonl"
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandFailed("this folder is being submitted by another process: wait for its end") from None
        if again:
            file.truncate(0)
        try:
            journal = Journal(file)
        except (ValueError, KeyError, TypeError) as error:
            raise CommandFailed(f"{path} is damaged ({error}): --again submits everything again") from error
        yield journal
