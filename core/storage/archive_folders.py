"""Archives in folders: listed in order with bounded memory, and read without ever leaving the root.

Every part of a path is opened below its parent, without following symbolic links. If the path contains a link, it is
resolved first and the target is opened the same way. So nothing outside the root is opened, even if a link is swapped
in between.
"""

import errno
import heapq
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes, urlsplit

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.intake.image_formats import has_image_suffix
from core.storage.archive_location import ArchiveLocation, ArchiveUnavailable

_CHUNK_NAMES = 50_000
"""Most names of a folder in memory; a larger folder is scanned once per chunk."""
_BLOCK = 256 * 1024
_LINKED = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)  # errors of O_NOFOLLOW at a symbolic link
_GONE = (errno.ENOENT, *_LINKED)
# Errors of one file only; the others can still be read.
_OF_ONE_FILE = (*_GONE, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENXIO, errno.EIO, errno.EISDIR)
_UNLISTABLE = (errno.EACCES, errno.EPERM, errno.EIO)  # errors of one subfolder only
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe without a writer would block

_QUOTED: Final = re.compile(r"\\x([0-9a-f]{2})")


def _listed_name(name: str) -> str:
    """Encode a file name for listings: PostgreSQL and JSON need UTF-8, so any other byte becomes `\\xff`.

    `_name_on_disk` reverses it: a backslash that looks like such an escape becomes `\\x5c`.
    """
    if "\\" in name:
        name = _QUOTED.sub(r"\\x5cx\1", name)
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _name_on_disk(name: str) -> str:
    """Decode a listed name to the file name on disk."""
    if "\\" not in name:
        return name
    pieces = _QUOTED.split(name)
    decoded = (os.fsencode(piece) if at % 2 == 0 else bytes.fromhex(piece) for at, piece in enumerate(pieces))
    return os.fsdecode(b"".join(decoded))


def path_of_url(url: str) -> str | None:
    """The path of a `file://` URL on this host; None for any other URL."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        return None
    return os.fsdecode(unquote_to_bytes(parts.path))


def parts_of(path: str) -> list[str]:
    """The parts of a path, without empty parts and `.`."""
    return [part for part in path.split("/") if part not in ("", ".")]


class Folder(ArchiveLocation):
    """A folder, given by its path parts below a root. Neither has to exist."""

    def __init__(self, root: Path, inside: Sequence[str] = ()) -> None:
        self.root = root
        self._inside = list(inside)
        self.url = root.joinpath(*inside).as_uri()

    def url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{quote(os.fsencode(name))}"

    def check(self) -> None:
        self._require(occupied=False)

    def images(self, after: str | None) -> Iterator[str]:
        after = after or ""
        self._require(occupied=bool(after))
        open_folders = [("", self._keys("", after))]
        while open_folders:
            prefix, keys = open_folders[-1]
            try:
                key = next(keys, None)
            except ArchiveUnavailable:
                raise
            except OSError:  # yield the folder itself, so that one failed result stands for its images
                open_folders.pop()
                if prefix > after:
                    yield prefix
                continue
            if key is None:
                open_folders.pop()
            elif key.endswith("/"):
                open_folders.append((prefix + key, self._keys(prefix + key, after)))
            else:
                after = prefix + key
                yield after

    def read(self, name: str, *, max_bytes: int) -> bytes:
        descriptor = self._open(name)
        try:
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - it is a descriptor
                size = os.fstat(descriptor).st_size
                content = file.read(min(size, max_bytes) + 1)
                while len(content) <= max_bytes and (more := file.read(_BLOCK)):  # the file is growing
                    content += more
        except OSError as error:
            raise self._fault(error, name) from error
        if len(content) > max_bytes:
            raise Undecodable(Failure.IMAGE_TOO_LARGE, f"The file is larger than {max_bytes} bytes.")
        return content

    def blocks(self, name: str, offset: int) -> Iterator[bytes]:
        descriptor = self._open(name)
        try:
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(offset)
                while block := file.read(_BLOCK):
                    yield block
        except OSError as error:
            raise self._fault(error, name) from error

    def _require(self, *, occupied: bool) -> None:
        """Check that the folder exists and, if `occupied`, is not empty, as an unmounted file system would be."""
        try:
            descriptor = self._walk(self._inside, _FOLDER_FLAGS)
            try:
                with os.scandir(descriptor) as entries:
                    is_empty = next(entries, None) is None
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unavailable(f"cannot be listed: {error.strerror}") from error
        if occupied and is_empty:
            raise self._unavailable("is empty but was not before. Check that it is mounted")

    def _unavailable(self, why: str) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"The folder {_listed_name(str(self.root.joinpath(*self._inside)))} {why}")

    def _keys(self, prefix: str, after: str) -> Iterator[str]:
        """The images and subfolders of one folder, in order; the names of folders end in `/`."""
        bound, slash, _ = (after[len(prefix) :] if after.startswith(prefix) else "").partition("/")
        # The folder of the last image may contain more, so it is included.
        last, inclusive = bound + slash, bool(slash)
        while True:
            fitting = (key for key in self._scan(prefix) if key > last or (inclusive and key == last))
            chunk = heapq.nsmallest(_CHUNK_NAMES, fitting)
            yield from chunk
            if len(chunk) < _CHUNK_NAMES:
                return
            last, inclusive = chunk[-1], False

    def _scan(self, prefix: str) -> Iterator[str]:
        """Scan a folder once, in no order. Raises OSError if it is a subfolder that cannot be listed."""
        try:
            descriptor = self._walk([*self._inside, *map(_name_on_disk, parts_of(prefix))], _FOLDER_FLAGS)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        name = entry.name
                        if name[0] == ".":
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            yield _listed_name(name) + "/"
                        elif has_image_suffix(name) and (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                            yield _listed_name(name)
            finally:
                os.close(descriptor)
        except OSError as error:
            if prefix and error.errno in _GONE:
                return
            if prefix and error.errno in _UNLISTABLE:
                raise
            raise self._unavailable(f"cannot be listed: {error.strerror}") from error

    def _open(self, name: str) -> int:
        """Open a regular file; returns its descriptor. Raises: see `read`."""
        try:
            parts = self._from_root(name)
            try:
                descriptor = self._walk(parts, _FILE_FLAGS)
            except OSError as error:
                if error.errno not in _LINKED:
                    raise
                descriptor = self._walk(self._resolved(parts), _FILE_FLAGS)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            raise self._fault(error, name) from error
        except ValueError:  # U+0000, lone surrogates
            raise Undecodable(Failure.IMAGE_MISSING, "This is not a valid file name.") from None
        raise Undecodable(Failure.IMAGE_MISSING, "This is not a regular file.")

    def _from_root(self, name: str) -> list[str]:
        path = path_of_url(name) if "://" in name else _name_on_disk(name)
        root = parts_of(str(self.root))
        absolute = path is None or path.startswith("/")
        parts = parts_of(path or "")
        if path is None or ".." in parts or (absolute and parts[: len(root)] != root):
            raise Undecodable(Failure.OUTSIDE_ROOT, "The path is outside the archive root.")
        return parts[len(root) :] if absolute else [*self._inside, *parts]

    def _resolved(self, parts: Sequence[str]) -> list[str]:
        """The parts with symbolic links resolved. Raises Undecodable if they lead out of the root."""
        inside = inside_root(self.root, self.root.joinpath(*parts))
        if inside is None:
            raise Undecodable(Failure.OUTSIDE_ROOT, "A symbolic link leads out of the archive root.")
        return inside

    def _walk(self, parts: Sequence[str], flags: int) -> int:
        """Open a file or folder by its path parts, following no symbolic link below the root."""
        descriptor = os.open(self.root, _FOLDER_FLAGS)
        for at, part in enumerate(parts, 1):
            part_flags = flags if at == len(parts) else _FOLDER_FLAGS
            try:
                child = os.open(part, part_flags | os.O_NOFOLLOW, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = child
        return descriptor

    def _fault(self, error: OSError, name: str) -> Exception:
        """The exception for an unreadable file: Undecodable, or ArchiveUnavailable if the archive is at fault."""
        if isinstance(error, ArchiveUnavailable):
            return error
        if error.errno not in _OF_ONE_FILE:
            return self._unavailable(f"cannot be read: {error.strerror}")
        try:
            self._require(occupied=True)
        except ArchiveUnavailable as unavailable:
            return unavailable
        if name.endswith("/"):
            return Undecodable(Failure.IMAGE_MISSING, f"This folder cannot be listed: {error.strerror}.")
        if error.errno == errno.ENOENT:
            return Undecodable(Failure.IMAGE_MISSING, "The file does not exist.")
        return Undecodable(Failure.IMAGE_MISSING, f"The file cannot be read: {error.strerror}.")


def inside_root(root: Path, path: Path) -> list[str] | None:
    """The parts of a path below the root, with all symbolic links resolved; None if it is not below the root."""
    real_root, real = parts_of(os.path.realpath(root)), parts_of(os.path.realpath(path))
    return real[len(real_root) :] if real[: len(real_root)] == real_root else None
