"""The loop of `linewatch watch`: find complete files, send them, record the outcomes, put the files away.

A round may end at any point, by an error or a kill. The next one reads the state from the folder and the journal.
"""

import asyncio
import heapq
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from linewatch.cli.failures import CommandFailed
from linewatch.cli.refusals import Refusal
from linewatch.cli.stamps import Stamp
from linewatch.cli.watching.filing import Filing
from linewatch.cli.watching.journal import Entry, Outcome, WatchJournal
from linewatch.cli.watching.notices import Notices
from linewatch.cli.watching.scanning import Folder, Settling
from linewatch.cli.watching.sending import Reading, Sender
from linewatch.errors import LinewatchError, Refused
from linewatch.http.request_bodies import safe_filename
from linewatch.types.results import Inspection

MOST_FILES: Final = 10_000
"""Files that are held in memory at a time, the oldest first; the others wait in the folder."""
_GROUP: Final = 64  # files that are recorded together
_PAUSE: Final = 10.0  # seconds before something that failed is tried again


@dataclass(frozen=True)
class Pace:
    """Seconds without a change after which a file is complete, and seconds between two scans."""

    settle: float
    every: float


@dataclass
class _Found:
    """What a scan found.

    Attributes:
        open: the oldest files to take; the entry is set if a file was sent before and got no answer.
        finished: files that have an outcome and are still there.
        newest: the largest modification time, in ns.
    """

    open: dict[Stamp, Entry | None] = field(default_factory=dict)
    finished: list[Entry] = field(default_factory=list)
    newest: int | None = None


class Watcher:
    """Takes the images of one folder."""

    def __init__(
        self, folder: Folder, reading: Reading, sender: Sender, filing: Filing, journal: WatchJournal, notices: Notices
    ) -> None:
        self._folder = folder
        self._reading = reading
        self._sender = sender
        self._filing = filing
        self._journal = journal
        self._notices = notices
        self._retry_at: dict[str, float] = {}  # of files that cannot be read
        self._file_at = 0.0  # when files are put away again; 0 if nothing failed

    async def follow(self, pace: Pace) -> None:
        """Take images until cancelled. What fails is tried again.

        Raises:
            Refused: the API key is not valid or may not submit images.
        """
        settling = Settling(pace.settle)
        while True:
            scan_seconds = 0.0
            try:
                begun = time.monotonic()
                found = await self._scan(None)
                scan_seconds = time.monotonic() - begun
                await self._take_complete(found, settling)
            except OSError as error:
                self._notices.begin("The folder", f"Waiting: {self._folder.path}: {_reason(error)}.")
            except sqlite3.OperationalError as error:
                self._notices.begin("The journal", f"Waiting: the journal cannot be written: {error}.")
                await asyncio.sleep(_PAUSE)
            except LinewatchError as error:
                if isinstance(error, Refused) and error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                    raise
                self._notices.begin("The system", f"Waiting: {error}; trying again.")
                await asyncio.sleep(_PAUSE)
            else:
                for subject in ("The folder", "The journal", "The system"):
                    self._notices.end(subject)
            await asyncio.sleep(max(pace.every, scan_seconds))  # a slow share is not scanned all the time

    async def once(self, pace: Pace) -> None:
        """Take the images that are there now. A file that is written meanwhile is left for the next call.

        Raises:
            CommandFailed: some files cannot be read or put away; the others were taken.
            LinewatchError, OSError, sqlite3.OperationalError: it cannot continue.
        """
        settling = Settling(pace.settle)
        found = await self._scan(None)
        newest = found.newest
        while (found.finished and not self._file_at) or any(stamp.name not in self._retry_at for stamp in found.open):
            await self._take_complete(found, settling)
            await asyncio.sleep(pace.every)
            found = await self._scan(newest)
        if self._retry_at or self._file_at:
            raise CommandFailed("some files could not be read or put away: they are named above")

    async def _scan(self, newest: int | None) -> _Found:
        """Return what is in the folder, apart from files newer than `newest`.

        Raises:
            OSError: the folder cannot be read.
        """
        found = _Found()

        def unfinished() -> Iterator[tuple[Stamp, Entry | None]]:
            for stamp, entry in self._journal.look_up(self._folder.stamps(self._report_unreadable)):
                if newest is not None and stamp.mtime_ns > newest:
                    continue
                found.newest = max(stamp.mtime_ns, found.newest or stamp.mtime_ns)
                if entry is None or entry.outcome is None:
                    yield stamp, entry
                elif not self._filing.leaves and len(found.finished) < MOST_FILES:
                    found.finished.append(entry)

        def scan() -> None:
            oldest = heapq.nsmallest(MOST_FILES, unfinished(), key=lambda file: (file[0].mtime_ns, file[0].name))
            found.open.update(oldest)

        await asyncio.to_thread(scan)
        return found

    def _report_unreadable(self, name: str, error: OSError) -> None:
        self._notices.begin(name, f"{safe_filename(name)} cannot be read: {_reason(error)}.")

    async def _take_complete(self, found: _Found, settling: Settling) -> None:
        """Put files away that have an outcome, and take those that are complete."""
        await self._put_away(found.finished)
        now = time.monotonic()
        names = {stamp.name for stamp in found.open}
        self._retry_at = {name: retry_at for name, retry_at in self._retry_at.items() if name in names}
        complete = settling.complete(found.open, now)
        due = [(stamp, found.open[stamp]) for stamp in complete if self._retry_at.get(stamp.name, now) <= now]
        for start in range(0, len(due), _GROUP):
            await self._take(due[start : start + _GROUP])

    async def _take(self, files: Sequence[tuple[Stamp, Entry | None]]) -> None:
        """Send files, record their outcomes and put them away.

        Raises:
            LinewatchError: a request failed, for a reason that is not an image's.
        """
        sent_before = [entry for _, entry in files if entry is not None]
        new = [(stamp, self._reading.fields_of(stamp)) for stamp, entry in files if entry is None]
        tasks = {
            asyncio.create_task(self._sender.send(entry)): entry for entry in sent_before + self._journal.begin(new)
        }
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(sqlite3.OperationalError):  # then they are sent again, and get the same answer
                self._record([(entry, task.result()) for task, entry in tasks.items() if not task.cancelled()])
            raise
        answers = [(entry, task.result()) for task, entry in tasks.items()]
        finished = self._record(answers)
        if not self._filing.leaves:
            await self._put_away(finished)
        for _, answer in answers:
            if isinstance(answer, LinewatchError):
                raise answer

    def _record(
        self, answers: "Sequence[tuple[Entry, Inspection | Refusal | LinewatchError | OSError | None]]"
    ) -> list[Entry]:
        """Record and print what became of files, and return the entries that have an outcome."""
        finished: list[Entry] = []
        refused: list[Entry] = []
        for entry, answer in answers:
            if isinstance(answer, Refusal):
                finished.append(entry.with_outcome(Outcome(code=answer.code, detail=answer.detail)))
            elif isinstance(answer, OSError):
                self._hold(entry.stamp.name, answer)
            elif isinstance(answer, LinewatchError):
                if isinstance(answer, Refused) and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    refused.append(entry)  # not accepted: the next try may have other fields
            elif isinstance(answer, Inspection):
                finished.append(entry.with_outcome(Outcome(inspection_id=str(answer.id))))
        self._journal.record(finished)
        self._journal.forget(refused)
        for _, answer in answers:
            if isinstance(answer, Inspection | Refusal):
                self._notices.add(answer)
        return finished

    def _hold(self, name: str, error: OSError) -> None:
        """Take a file that cannot be read later."""
        if name not in self._retry_at:
            self._notices.say(f"{safe_filename(name)} cannot be read: {_reason(error)}; trying again.")
        self._retry_at[name] = time.monotonic() + _PAUSE

    async def _put_away(self, entries: Sequence[Entry]) -> None:
        if not entries or time.monotonic() < self._file_at:
            return
        done, error = await asyncio.to_thread(self._filing.put_away, entries)
        self._journal.forget(done)
        if error is None:
            self._file_at = 0.0
            self._notices.end("Putting files away")
        else:
            self._file_at = time.monotonic() + _PAUSE
            self._notices.begin("Putting files away", f"Waiting: {error.filename}: {_reason(error)}.")


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
