"""Anomaly maps, heatmaps and reports in the store: made on demand, and deleted when they are old."""

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from core.storage.image_store import MADE_FOLDERS, Store

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a file is kept after it was made. It is made again when somebody asks for it."""


def expire(store: Store, *, at_most: int) -> int:
    """Delete files that were made longer ago than `KEPT_SECONDS`, and folders that are empty. Returns how many files.

    Reads no more folders than there are model versions, and in them the files of the last `KEPT_SECONDS`.
    """
    made_before = time.time() - KEPT_SECONDS
    deleted = 0
    for folder in chain.from_iterable(_folders(store.root / name) for name in MADE_FOLDERS):
        for file in _old_files(folder, made_before):
            if deleted == at_most:
                return deleted
            file.unlink(missing_ok=True)
            deleted += 1
        if folder.parent != store.root:
            with suppress(OSError):  # it has files
                folder.rmdir()
    return deleted


def _folders(root: Path) -> Iterator[Path]:
    """Yield a folder and the folders in it."""
    if root.is_dir():
        yield root
        yield from sorted(path for path in root.iterdir() if path.is_dir())


def _old_files(folder: Path, made_before: float) -> Iterator[Path]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process has deleted it
            if path.is_file() and path.stat().st_mtime < made_before:
                yield path
