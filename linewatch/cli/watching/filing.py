"""Put files away once their image was accepted or rejected."""

import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from linewatch.cli.stamps import Stamp
from linewatch.cli.watching.journal import Entry


class After(StrEnum):
    """What to do with a file whose image was accepted."""

    MOVE = "move"
    MARK = "mark"
    DELETE = "delete"
    LEAVE = "leave"


@dataclass(frozen=True)
class Filing:
    """Where files go.

    Rejected ones get a text file with the reason beside them. With `MARK` they are renamed where they are; with
    `LEAVE` nothing in the folder changes; otherwise they are moved to `rejected`, whatever happens to accepted ones.
    """

    folder: Path
    after: After
    accepted: Path
    rejected: Path

    @property
    def leaves(self) -> bool:
        """Whether files stay as they are."""
        return self.after is After.LEAVE

    def put_away(self, entries: Iterable[Entry]) -> tuple[list[Entry], OSError | None]:
        """Put files away. Files that are absent or have changed are not touched.

        Returns:
            The entries that are done, and the last error of the others. The entry of an absent file is not done: the
            file may be on a share that is not mounted.
        """
        done, last_error = [], None
        for entry in entries:
            try:
                self._put_away(entry)
            except FileNotFoundError:
                continue
            except OSError as error:
                last_error = error
            else:
                done.append(entry)
        return done, last_error

    def _put_away(self, entry: Entry) -> None:
        source = self.folder / entry.stamp.name
        if _version(source) != (entry.stamp.size, entry.stamp.mtime_ns):
            return  # a newer image has the name: it will be sent
        assert entry.outcome is not None  # noqa: S101 - only entries with an outcome are put away
        accepted = entry.outcome.accepted
        if accepted and self.after is After.DELETE:
            target = source.with_name(f".{source.name}.{entry.key}")
        elif self.after is After.MARK:
            target = source.with_name(f"{source.name}.{'accepted' if accepted else 'rejected'}")
        else:
            target = (self.accepted if accepted else self.rejected) / entry.stamp.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # the camera uses its names again
            target = target.with_name(f"{target.stem}.{entry.outcome.inspection_id or entry.key}{target.suffix}")
        if not accepted:
            reason = f"{entry.outcome.detail} ({entry.outcome.code})\n"
            target.with_name(f"{target.name}.txt").write_text(reason, encoding="utf-8")
        if _moved(source, target, entry.stamp) and accepted and self.after is After.DELETE:
            target.unlink()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _moved(source: Path, target: Path, stamp: Stamp) -> bool:
    """Move a file. If the camera has just replaced it, put the newer image back and return False."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _copied(source, target, stamp)
    if _version(target) == (stamp.size, stamp.mtime_ns):
        return True
    target.rename(source)
    return False


def _copied(source: Path, target: Path, stamp: Stamp) -> bool:
    """Move a file to another file system: it appears there once it is complete and durable."""
    draft = target.with_name(f".{target.name}.part")
    try:
        shutil.copy2(source, draft)
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        if _version(source) != (stamp.size, stamp.mtime_ns):
            return False
        draft.replace(target)
        source.unlink()
        return True
    finally:
        draft.unlink(missing_ok=True)
