"""The journal of a watched folder: which files are being sent, and which were accepted or rejected.

A file is recorded with its `Idempotency-Key` and its fields before it is sent, and its outcome before it is moved. If a
file got no answer, because the process or the connection ended first, it may have been accepted; it is sent again
unchanged under the same key, which prevents duplicates.

The journal of `linewatch submit` belongs to one run and grows with it. This one is kept for years, so it is a database
of the files that are still of interest: memory and disk do not grow with the number of files taken.
"""

import datetime as dt
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self
from uuid import uuid4

from linewatch.cli.cache import name_for
from linewatch.cli.failures import CommandFailed
from linewatch.cli.stamps import Stamp

KEPT_DAYS: Final = 30
"""Days for which a file is remembered after it was last in the folder, which may be a share that is not mounted."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY,
    version TEXT NOT NULL,
    key TEXT NOT NULL,
    fields TEXT NOT NULL,
    outcome TEXT,
    seen_day INTEGER NOT NULL
) WITHOUT ROWID
"""
_FIND: Final = "SELECT key, fields, outcome, seen_day FROM files WHERE name = ? AND version = ?"
_BEGIN: Final = """
INSERT INTO files (name, version, key, fields, seen_day) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET version = excluded.version, key = excluded.key, fields = excluded.fields,
    outcome = NULL, seen_day = excluded.seen_day
"""


@dataclass(frozen=True)
class Outcome:
    """What became of an image: the inspection's id, or why it was rejected."""

    inspection_id: str | None = None
    code: str | None = None
    detail: str | None = None

    @property
    def accepted(self) -> bool:
        return self.inspection_id is not None


@dataclass(frozen=True)
class Entry:
    """A file in the journal.

    Attributes:
        fields: None if they cannot be read from its path.
        outcome: None until there is an answer.
    """

    stamp: Stamp
    key: str
    fields: Mapping[str, str] | None
    outcome: Outcome | None = None

    def with_outcome(self, outcome: Outcome) -> Self:
        return replace(self, outcome=outcome)


class WatchJournal:
    """The journal of one folder and one system. Every method that writes is durable when it returns.

    Methods raise `sqlite3.OperationalError` if the disk cannot be written; nothing has changed then.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        """`database` is locked by this process and has the table; the caller closes it."""
        self._database = database
        self._purged_day = 0

    def look_up(self, stamps: Iterable[Stamp]) -> Iterator[tuple[Stamp, Entry | None]]:
        """Yield each file with its entry; None if the file is new or has changed. Read it to the end.

        Files are noted as present; those that were not present for `KEPT_DAYS` are forgotten.
        """
        today = _today()
        with self._database:
            if today > self._purged_day:
                self._database.execute("DELETE FROM files WHERE seen_day < ?", (today - KEPT_DAYS,))
            for stamp in stamps:
                yield stamp, self._find(stamp, today)
        self._purged_day = today

    def begin(self, files: Iterable[tuple[Stamp, Mapping[str, str] | None]]) -> list[Entry]:
        """Record files, with their fields, that are about to be sent; each gets a new key."""
        entries = [Entry(stamp, uuid4().hex, fields) for stamp, fields in files]
        today = _today()
        with self._database:
            self._database.executemany(
                _BEGIN,
                [
                    (os.fsencode(entry.stamp.name), _version(entry.stamp), entry.key, json.dumps(entry.fields), today)
                    for entry in entries
                ],
            )
        return entries

    def record(self, entries: Iterable[Entry]) -> None:
        """Record the outcomes of entries."""
        rows = [(json.dumps(vars(entry.outcome)), os.fsencode(entry.stamp.name), entry.key) for entry in entries]
        with self._database:
            self._database.executemany("UPDATE files SET outcome = ? WHERE name = ? AND key = ?", rows)

    def forget(self, entries: Iterable[Entry]) -> None:
        """Remove entries: their files are no longer in the folder, or will be sent under another key."""
        rows = [(os.fsencode(entry.stamp.name), entry.key) for entry in entries]
        with self._database:
            self._database.executemany("DELETE FROM files WHERE name = ? AND key = ?", rows)

    def _find(self, stamp: Stamp, today: int) -> Entry | None:
        name = os.fsencode(stamp.name)
        row = self._database.execute(_FIND, (name, _version(stamp))).fetchone()
        if row is None:
            return None
        key, fields, outcome, seen_day = row
        if seen_day != today:
            self._database.execute("UPDATE files SET seen_day = ? WHERE name = ?", (today, name))
        return Entry(stamp, key, json.loads(fields), None if outcome is None else Outcome(**json.loads(outcome)))


def _version(stamp: Stamp) -> str:
    return f"{stamp.size} {stamp.mtime_ns}"


def _today() -> int:
    """The number of the day, in UTC."""
    return dt.datetime.now(dt.UTC).toordinal()


@contextmanager
def opened(journals: Path, about: Mapping[str, Any], *, again: bool) -> Iterator[WatchJournal]:
    """Open a journal in the folder `journals`, locked for this process.

    Args:
        about: the JSON that identifies a folder and a system.
        again: whether to clear the journal.

    Raises:
        CommandFailed: another process has locked the journal, or it cannot be read.
    """
    path = journals / f"{name_for(about)}.sqlite3"
    try:
        # One thread at a time uses it. The lock lasts as long as the connection, and ends with the process.
        database = sqlite3.connect(path, timeout=0, check_same_thread=False)
    except sqlite3.OperationalError as error:
        raise CommandFailed(f"the journal {path} cannot be opened: {error}") from error
    try:
        with _explained(path):
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(_SCHEMA)
                if again:
                    database.execute("DELETE FROM files")
            yield WatchJournal(database)
    finally:
        database.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of a journal into one line that says what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # the rest of an extended code says why
            raise CommandFailed("another process is watching this folder for this system: stop it first") from None
        raise CommandFailed(f"the journal {path} cannot be written: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CommandFailed(
            f"the journal {path} is damaged ({error}): delete it; what is still in the folder is then sent again"
        ) from error
