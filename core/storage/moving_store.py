"""An image store that moves to another place while it is in use: everything is written to the new place only."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.storage.image_store import NewFile, Staged, Store, StoredFile

_THREADS = 8
_AHEAD = 2 * _THREADS


class MovingStore(Store):
    """A new store, and an old one in which files are read that the new one does not have.

    Files are listed and deleted in both.
    """

    def __init__(self, new: Store, old: Store) -> None:
        self.new = new
        self.old = old
        self.threads, self.share = new.threads, new.share
        self.stages_durably, self.is_local = new.stages_durably, new.is_local
        super().__init__(new.scratch)

    def write_out(self, file: NewFile, key: str) -> None:
        self.new.write_out(file, key)

    def move(self, file: NewFile, key: str) -> Path | None:
        return self.new.move(file, key)

    def sync(self, folders: Iterable[Path]) -> None:
        self.new.sync(folders)

    def publish(self, staged: Iterable[tuple[Staged, str]]) -> None:
        self.new.publish(staged)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        self.new.put_all(files)

    def read(self, key: str) -> bytes:
        try:
            return self.new.read(key)
        except FileNotFoundError:
            return self.old.read(key)

    def size(self, key: str) -> int | None:
        size = self.new.size(key)
        return self.old.size(key) if size is None else size

    def holds(self, key: str) -> bool:
        return self.new.holds(key) or self.old.holds(key)

    def local_path(self, key: str, folder: Path) -> Path:
        path = self.new.local_path(key, folder)
        return path if path.exists() else self.old.local_path(key, folder)

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        with self.new.local_file(key) as path:
            if path.exists():
                yield path
                return
        with self.old.local_file(key) as path:
            yield path

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        """The files of both stores; of those that are in both, the new one's."""
        previous = ""
        for file in heapq.merge(self.new.files(prefix), self.old.files(prefix), key=lambda file: file.key):
            if file.key != previous:
                yield file
            previous = file.key

    def delete(self, keys: Iterable[str]) -> int:
        both = list(keys)
        in_old = self.old.delete(both)  # first, as `copy_all` expects
        return max(in_old, self.new.delete(both))

    def check(self) -> None:
        self.new.check()

    def link(self, key: str, *, seconds: int) -> str | None:
        return self.new.link(key, seconds=seconds) if self.new.holds(key) else None


@dataclass
class Copied:
    """What a run of `copy_all` has done so far. `present` were in the new store already."""

    files: int = 0
    bytes: int = 0
    present: int = 0


def copy_all(old: Store, new: Store, *, progress: Callable[[Copied], None]) -> Copied:
    """Copy every file of a store that the other does not have. It may be run again at any time.

    Args:
        progress: called after each file.

    Raises:
        OSError: one of the stores is unavailable or full.
    """
    copied = Copied()

    def count(done: Iterable[Future[bool]]) -> None:
        for future in done:
            file = copying.pop(future)
            if future.result():
                copied.files += 1
                copied.bytes += file.size
            else:
                copied.present += 1
            progress(copied)

    copying: dict[Future[bool], StoredFile] = {}
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="copy")
    try:
        for file in old.files():
            copying[threads.submit(_copy, old, new, file)] = file
            if len(copying) >= _AHEAD:
                count(wait(copying, return_when=FIRST_COMPLETED).done)
        count(wait(copying).done)
    finally:
        threads.shutdown(cancel_futures=True)
    return copied


def _copy(old: Store, new: Store, file: StoredFile) -> bool:
    """Copy one file. Returns False if it was in the new store already, or is in neither any more."""
    if new.holds(file.key):  # complete, because puts are atomic
        return False
    with old.local_file(file.key) as path:
        if not path.exists():  # deleted in the meantime
            return False
        staged = new.stage()
        try:
            with path.open("rb") as source:
                while block := source.read(1024 * 1024):
                    staged.write(block)
            staged.flush()
            new.publish([(staged, file.key)])
        finally:
            staged.discard()
    if not old.holds(file.key):  # deleted in the meantime, perhaps before it was in the new store
        new.delete([file.key])
    return True
