"""The folder of backups.

`store/` holds the files of all backups under their keys in the store, each once. Every backup has a folder of its own,
named by its time, with the dump of the database, the list of images and the manifest. The name of an unfinished one
ends in `.incomplete`.
"""

import datetime as dt
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from core.backup import BackupError
from core.backup.manifest import FileRecord, Manifest
from core.storage.folder_store import FolderStore

DUMP, IMAGE_LIST, MANIFEST, STORE = "database.dump", "images.tsv", "manifest.json", "store"
INCOMPLETE = ".incomplete"
_LOCK = "lock"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{3}Z")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Backup:
    """A backup that is complete or being written."""

    path: Path

    @property
    def dump(self) -> Path:
        return self.path / DUMP

    @property
    def image_list(self) -> Path:
        return self.path / IMAGE_LIST

    def read_manifest(self) -> Manifest:
        """Return the manifest.

        Raises:
            BackupError: it is missing, damaged or of a newer format.
        """
        file = self.path / MANIFEST
        try:
            return Manifest.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise BackupError(f"{self.path} has no {MANIFEST}: name another backup with --name") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"]) or "its content"
            raise BackupError(
                f"{file} cannot be read ({where}: {first['msg']}): name another backup with --name, "
                "or upgrade Linewatch if a newer version wrote it"
            ) from None


class BackupFolder:
    """A folder with any number of backups."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def names(self) -> list[str]:
        """The names of the complete backups, oldest first."""
        return sorted(path.name for path in self.path.iterdir() if _NAME.fullmatch(path.name))

    @property
    def incomplete(self) -> list[Path]:
        """The folders of backups that are being written, or that were interrupted."""
        return sorted(path for path in self.path.glob(f"*{INCOMPLETE}") if path.is_dir())

    @contextmanager
    def locked(self, *, for_writing: bool) -> Iterator[None]:
        """Keep other processes from writing to the folder during a `with` block.

        Args:
            for_writing: whether this process writes; others may then not even read. The folder is created if it is
                missing, for its owner only.

        Raises:
            BackupError: another process uses the folder.
        """
        file = self.path / _LOCK
        if for_writing:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
        elif not file.exists():  # nobody has written here, or it is a copy
            yield
            return
        with file.open() as lock:
            try:
                fcntl.flock(lock, (fcntl.LOCK_EX if for_writing else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError(f"another process uses the backups in {self.path}: wait until it has ended") from None
            yield

    def store(self) -> FolderStore:
        """Return the files of all backups, as a store."""
        return FolderStore((self.path.resolve() / STORE).as_uri())

    def find(self, name: str | None) -> Backup:
        """Return a complete backup by its name, the newest by default.

        Raises:
            BackupError: there is none.
        """
        names = self.names if self.path.is_dir() else []
        if name is None and names:
            return Backup(self.path / names[-1])
        if name in names:
            return Backup(self.path / name)
        unfinished = self.incomplete[-1:] if self.path.is_dir() else []
        if name is None:
            hint = f"; {unfinished[0].name} was never finished" if unfinished else ""
            raise BackupError(f"{self.path} holds no complete backup{hint}: name the folder of `linewatch backup`")
        raise BackupError(f"{self.path} has no complete backup {name}: it has {', '.join(names) or 'none'}")

    def begin(self) -> Backup:
        """Create the folder of a new backup, which is marked as incomplete. Only its owner can read what it holds."""
        name = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S.%f}"[:-3] + f"Z{INCOMPLETE}"
        draft = self.path / name
        draft.mkdir(mode=0o700)
        return Backup(draft)

    def complete(self, draft: Backup, manifest: Manifest) -> Backup:
        """Write the manifest of a new backup and remove the mark, durably."""
        with (draft.path / MANIFEST).open("w") as file:
            file.write(manifest.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _sync(draft.path)
        finished = self.path / draft.path.name.removesuffix(INCOMPLETE)
        draft.path.rename(finished)
        _sync(self.path)
        return Backup(finished)


def record_of(file: Path) -> FileRecord:
    """Return the size and the SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
