"""An image store in a folder of a local or shared file system."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.storage.image_store import (
    STAGING,
    TRAININGS,
    NewFile,
    Staged,
    Store,
    StoredFile,
    WholeFile,
    check_key,
    is_key,
)

_LOCAL = (f"{STAGING}/", f"{TRAININGS}/")
"""What is in the folder though it is not of the store: files that are being received, and trainings in progress."""


class FolderStore(Store):
    """A store in a folder, addressed as `file:///absolute/path`.

    Attributes:
        root: the folder.
    """

    threads = 4
    share = 4
    stages_durably = True
    is_local = True

    def __init__(self, url: str) -> None:
        self.root = Path(unquote(urlsplit(url).path))
        self._durable_folders: set[Path] = set()
        super().__init__(self.root)

    def write_out(self, file: NewFile, key: str) -> None:
        """Sync the content to disk; that of a `Staged` file was synced when it was flushed."""
        if isinstance(file, WholeFile):
            file.sync()

    def move(self, file: NewFile, key: str) -> Path:
        """Move one file to its key. Returns its folder."""
        if isinstance(file, Staged):
            file.close()
        target = self.path(key)
        folder = target.parent
        self._make_folder(folder)
        try:
            file.path.replace(target)
        except FileNotFoundError:
            if folder.is_dir():  # the staged file is missing
                raise
            self._durable_folders.clear()  # someone has removed folders
            self._make_folder(folder)
            file.path.replace(target)
        return folder

    def sync(self, folders: Iterable[Path]) -> None:
        """Make the entries of folders durable."""
        for folder in folders:
            _sync_folder(folder)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        staged: list[tuple[Staged, str]] = []
        try:
            for key, data in files.items():
                staged.append((self.stage(), key))
                staged[-1][0].write(data)
                staged[-1][0].flush()
            self.publish(staged)
        except BaseException:
            for file, _ in staged:
                file.discard()
            raise

    def read(self, key: str) -> bytes:
        return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """The path of a file, which may not exist."""
        return self.root / check_key(key)

    def local_path(self, key: str, folder: Path) -> Path:
        return self.path(key)

    @contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        yield self.path(key)

    def size(self, key: str) -> int | None:
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def holds(self, key: str) -> bool:
        return self.path(key).is_file()

    def files(self, prefix: str = "") -> Iterator[StoredFile]:
        for key in self._keys(check_key(prefix) if prefix else ""):
            try:
                status = self.path(key).stat()
            except FileNotFoundError:  # deleted in the meantime
                continue
            yield StoredFile(key, status.st_size, status.st_mtime)

    def delete(self, keys: Iterable[str]) -> int:
        """Delete files, and the folders that are empty then. Returns how many files existed."""
        deleted = 0
        folders = set()
        for path in map(self.path, keys):
            folders.add(path.parent)
            with suppress(FileNotFoundError):  # another process has deleted it
                path.unlink()
                deleted += 1
        for folder in folders:
            with suppress(OSError):  # it holds other files
                folder.rmdir()
        return deleted

    def check(self) -> None:
        staged = self.stage()
        try:
            staged.write(b"linewatch")
            staged.flush()
        finally:
            staged.discard()

    def _keys(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix, in their order. A folder is read only when it is its turn."""
        try:
            with os.scandir(self.root / prefix) as entries:
                names = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):  # deleted in the meantime
            return
        for name in names:
            key = f"{prefix}/{name}" if prefix else name
            if not is_key(key.rstrip("/")) or key in _LOCAL:
                continue
            if name.endswith("/"):
                yield from self._keys(key.rstrip("/"))
            else:
                yield key

    def _make_folder(self, folder: Path) -> None:
        """Create a folder and its parents durably. Folders created before are not checked again."""
        if folder in self._durable_folders:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for ancestor in [folder, *folder.parents]:
            _sync_folder(ancestor)
            if ancestor == self.root:
                break
        self._durable_folders.add(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
