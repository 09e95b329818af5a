"""Delete old backups, and the files of the folder's store that no other backup refers to."""

import heapq
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from core.backup.folder import INCOMPLETE, Backup, BackupFolder
from core.backup.saving import list_images


@dataclass
class Pruned:
    """What was deleted.

    Attributes:
        backups: the names of backups.
        files, bytes: of the folder's store.
    """

    backups: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def delete(self, file: Path) -> None:
        self.bytes += file.stat().st_size
        self.files += 1
        file.unlink()


def prune(folder: BackupFolder, *, keep: int) -> Pruned:
    """Delete all but the newest complete backups. Nothing else may use the folder: hold its lock.

    An interrupted call leaves no half of a backup that looks complete; the next one deletes the rest.

    Args:
        keep: how many to keep, 1 or more.
    """
    pruned = Pruned()
    for name in folder.names[:-keep]:
        marked = folder.path / f"{name}{INCOMPLETE}"
        (folder.path / name).rename(marked)
        pruned.backups.append(name)
    for path in folder.incomplete:
        shutil.rmtree(path)
    kept = [Backup(folder.path / name) for name in folder.names]
    store = folder.store().root
    _delete_images(store, kept, pruned)
    others = {key for backup in kept for key in backup.read_manifest().files}
    for file in sorted(store.glob("*/*")):
        if file.is_file() and file.relative_to(store).as_posix() not in others:
            pruned.delete(file)
    return pruned


def _delete_images(store: Path, kept: Iterable[Backup], pruned: Pruned) -> None:
    """Delete images day by day, so that no more than one day's are in memory."""
    listed = heapq.merge(*(_keys(backup) for backup in kept))  # each list is sorted
    needed = groupby(listed, key=lambda key: key.rpartition("/")[0])
    needed_day, keys = next(needed, ("", iter(())))
    for day in sorted(path.relative_to(store).as_posix() for path in store.glob("*/*/*") if path.is_dir()):
        while needed_day and needed_day < day:  # all images of that day are lost
            needed_day, keys = next(needed, ("", iter(())))
        _delete_others(store, day, set(keys) if needed_day == day else set(), pruned)


def _keys(backup: Backup) -> Iterator[str]:
    return (file.key for file in list_images(backup))


def _delete_others(store: Path, day: str, needed: set[str], pruned: Pruned) -> None:
    for file in sorted((store / day).iterdir()):
        if f"{day}/{file.name}" not in needed:
            pruned.delete(file)
