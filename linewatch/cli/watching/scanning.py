"""Find the images of a folder, and those that are complete.

The folder is polled: network shares report no changes of other machines, on Linux and on Windows.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Final

from linewatch.cli.image_files import SUFFIXES
from linewatch.cli.stamps import Stamp

_TEMPORARY_STARTS: Final = (".", "~")
_TEMPORARY_SUFFIXES: Final = frozenset({".filepart", ".part", ".partial", ".temp", ".tmp"})
_EMPTY_SECONDS: Final = 60.0  # an empty file is usually about to be written

OnUnreadable = Callable[[str, OSError], object]


class Folder:
    """A folder that cameras write into."""

    def __init__(self, path: Path, *, skipped: Iterable[Path] = (), ignored: Sequence[str] = ()) -> None:
        """Reads nothing yet.

        Args:
            skipped: folders in it that are not scanned.
            ignored: glob patterns of names that are not taken.
        """
        self.path = path
        self._skipped = frozenset(str(folder) for folder in skipped)
        self._ignored = tuple(ignored)

    def stamps(self, on_unreadable: OnUnreadable) -> Iterator[Stamp]:
        """Yield the images in the folder and its subfolders, in no order. Links and temporary names are skipped.

        Args:
            on_unreadable: called for a subfolder that may not be read; the others are scanned.

        Raises:
            OSError: the folder cannot be read, or its file system fails.
        """
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(self.path / prefix) as entries:
                    for entry in entries:
                        name = prefix + entry.name
                        if entry.is_dir(follow_symlinks=False):
                            if not entry.name.startswith(".") and entry.path not in self._skipped:
                                waiting.append(f"{name}/")
                        elif self._is_wanted(entry.name) and entry.is_file(follow_symlinks=False):
                            yield from _stamps(name, entry)
            except PermissionError as error:
                if not prefix:
                    raise
                on_unreadable(prefix, error)
            except FileNotFoundError:
                if not prefix:
                    raise

    def stamp(self, name: str) -> Stamp:
        """Return the present stamp of one file.

        Raises:
            OSError: it cannot be read.
        """
        status = (self.path / name).stat()
        return Stamp(name, status.st_size, status.st_mtime_ns)

    def _is_wanted(self, name: str) -> bool:
        suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
        if not suffixes or suffixes[-1] not in SUFFIXES or name.startswith(_TEMPORARY_STARTS):
            return False
        return not _TEMPORARY_SUFFIXES.intersection(suffixes) and not any(fnmatch(name, glob) for glob in self._ignored)


def _stamps(name: str, entry: "os.DirEntry[str]") -> Iterator[Stamp]:
    """The stamp of an entry, unless it has just vanished. On Windows, the entry itself may be out of date."""
    try:
        status = os.stat(entry.path, follow_symlinks=False)  # noqa: PTH116 - a Path for each file takes longer
    except FileNotFoundError:
        return
    yield Stamp(name, status.st_size, status.st_mtime_ns)


class Settling:
    """Recognises complete files: their size and modification time have not changed for some time."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is the time without a change; with 0, a file is complete at once. Empty files take a minute."""
        self._seconds = seconds
        self._first_seen: dict[Stamp, float] = {}

    def complete(self, stamps: Iterable[Stamp], now: float) -> list[Stamp]:
        """Return the complete ones among the present files, in their order. Files that are absent are forgotten.

        Args:
            now: seconds of a monotonic clock.
        """
        self._first_seen = {stamp: self._first_seen.get(stamp, now) for stamp in stamps}
        return [stamp for stamp, first in self._first_seen.items() if now - first >= self._needed(stamp)]

    def _needed(self, stamp: Stamp) -> float:
        return self._seconds if stamp.size else max(self._seconds, _EMPTY_SECONDS)
