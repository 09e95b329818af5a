"""Folders of an archive: listed in order with bounded memory, read without ever leaving their root.

A file is opened part by part from the root, following no symbolic link. Where there is one it is resolved first, and
what it leads to is opened in the same way: whatever is swapped in between, nothing outside the root is opened.
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
from core.storage.locations import ArchiveLocation, ArchiveUnavailable

_KEPT = 50_000
"""At most this many names of a folder are in memory; a larger folder is read once for each portion."""
_BLOCK = 256 * 1024
_LINKED = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)  # what O_NOFOLLOW says of a symbolic link
_GONE = (errno.ENOENT, *_LINKED)
# What may be wrong with one file while the others can be read.
_OF_ONE_FILE = (*_GONE, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENXIO, errno.EIO, errno.EISDIR)
_UNLISTABLE = (errno.EACCES, errno.EPERM, errno.EIO)  # of one folder among others
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a pipe without a writer would block

_QUOTED: Final = re.compile(r"\\x([0-9a-f]{2})")


def list_images(name: str) -> str:
    """How a file name is listed: PostgreSQL and JSON hold no bytes that are not UTF-8, so they become `\\xff`.

    It can be undone: a backslash that would look like such a byte becomes `\\x5c`.
    """
    if "\\" in name:
        name = _QUOTED.sub(r"\\x5cx\1", name)
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _on_disk(name: str) -> str:
    """The file name that is listed as this."""
    if "\\" not in name:
        return name
    pieces = _QUOTED.split(name)
    whole = (os.fsencode(one) if at % 2 == 0 else bytes.fromhex(one) for at, one in enumerate(pieces))
    return os.fsdecode(b"".join(whole))


def path_of_url(url: str) -> str | None:
    """The path of a `file://` URL of this machine, else None."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        return None
    return os.fsdecode(unquote_to_bytes(parts.path))


def parts_of(path: str) -> list[str]:
    """The parts of a path; those that say nothing are left out."""
    return [one for one in path.split("/") if one not in ("", ".")]


class Folder(ArchiveLocation):
    """A folder, by the parts of its path from its root; neither has to be there."""

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
            except OSError:  # one result says so; it stands where the images of that folder would
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
        descriptor = self._opened(name)
        try:
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - it is open already
                size = os.fstat(descriptor).st_size
                content = file.read(min(size, max_bytes) + 1)
                while len(content) <= max_bytes and (more := file.read(_BLOCK)):  # it is growing
                    content += more
        except OSError as error:
            raise self._fault(error, name) from error
        if len(content) > max_bytes:
            raise Undecodable(Failure.IMAGE_TOO_LARGE, f"The file is larger than {max_bytes} bytes.")
        return content

    def blocks(self, name: str, offset: int) -> Iterator[bytes]:
        descriptor = self._opened(name)
        try:
            with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(offset)
                while block := file.read(_BLOCK):
                    yield block
        except OSError as error:
            raise self._fault(error, name) from error

    def _require(self, *, occupied: bool) -> None:
        """See that the folder is there; and not empty, as the folder of a file system that is not mounted would be."""
        try:
            descriptor = self._walk(self._inside, _FOLDER_FLAGS)
            try:
                with os.scandir(descriptor) as entries:
                    is_empty = next(entries, None) is None
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._away(f"cannot be listed: {error.strerror}") from error
        if occupied and is_empty:
            raise self._away("is empty, and was not: is it mounted?")

    def _away(self, why: str) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"The folder {list_images(str(self.root.joinpath(*self._inside)))} {why}")

    def _keys(self, prefix: str, after: str) -> Iterator[str]:
        """What one folder holds, in order: names of images, and names of folders with a `/` at their end."""
        bound, slash, _ = (after[len(prefix) :] if after.startswith(prefix) else "").partition("/")
        # The folder that the last image is in has more of them, perhaps.
        last, inclusive = bound + slash, bool(slash)
        while True:
            fitting = (key for key in self._scan(prefix) if key > last or (inclusive and key == last))
            chunk = heapq.nsmallest(_KEPT, fitting)
            yield from chunk
            if len(chunk) < _KEPT:
                return
            last, inclusive = chunk[-1], False

    def _scan(self, prefix: str) -> Iterator[str]:
        """One pass over a folder, in no order. Raises OSError for a folder below this one that cannot be listed."""
        try:
            descriptor = self._walk([*self._inside, *map(_on_disk, parts_of(prefix))], _FOLDER_FLAGS)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        name = entry.name
                        if name[0] == ".":
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            yield list_images(name) + "/"
                        elif has_image_suffix(name) and (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                            yield list_images(name)
            finally:
                os.close(descriptor)
        except OSError as error:
            if prefix and error.errno in _GONE:
                return
            if prefix and error.errno in _UNLISTABLE:
                raise
            raise self._away(f"cannot be listed: {error.strerror}") from error

    def _opened(self, name: str) -> int:
        """A descriptor of a regular file of the root. Raises as `read`."""
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
            raise Undecodable(Failure.IMAGE_MISSING, "This is no name of a file.") from None
        raise Undecodable(Failure.IMAGE_MISSING, "It is no regular file.")

    def _from_root(self, name: str) -> list[str]:
        path = path_of_url(name) if "://" in name else _on_disk(name)
        root = parts_of(str(self.root))
        absolute = path is None or path.startswith("/")
        parts = parts_of(path or "")
        if path is None or ".." in parts or (absolute and parts[: len(root)] != root):
            raise Undecodable(Failure.OUTSIDE_ROOT, "The path leads out of the archive's root.")
        return parts[len(root) :] if absolute else [*self._inside, *parts]

    def _resolved(self, parts: Sequence[str]) -> list[str]:
        """The same file without symbolic links. Raises Undecodable where they lead out of the root."""
        inside = inside_root(self.root, self.root.joinpath(*parts))
        if inside is None:
            raise Undecodable(Failure.OUTSIDE_ROOT, "A symbolic link leads out of the archive's root.")
        return inside

    def _walk(self, parts: Sequence[str], flags: int) -> int:
        """Open something by its path from the root, following no links below the root."""
        descriptor = os.open(self.root, _FOLDER_FLAGS)
        for at, part in enumerate(parts, 1):
            own = flags if at == len(parts) else _FOLDER_FLAGS
            try:
                deeper = os.open(part, own | os.O_NOFOLLOW, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor

    def _fault(self, error: OSError, name: str) -> Exception:
        """Whose fault it is that a file cannot be read: its own, or that of an archive that is away."""
        if isinstance(error, ArchiveUnavailable):
            return error
        if error.errno not in _OF_ONE_FILE:
            return self._away(f"cannot be read: {error.strerror}")
        try:
            self._require(occupied=True)
        except ArchiveUnavailable as unavailable:
            return unavailable
        if name.endswith("/"):
            return Undecodable(Failure.IMAGE_MISSING, f"This folder cannot be listed: {error.strerror}.")
        if error.errno == errno.ENOENT:
            return Undecodable(Failure.IMAGE_MISSING, "There is no such file.")
        return Undecodable(Failure.IMAGE_MISSING, f"The file cannot be read: {error.strerror}.")


def inside_root(root: Path, path: Path) -> list[str] | None:
    """The parts of a path from its root, once all symbolic links are resolved; None where it is not below it."""
    real_root, real = parts_of(os.path.realpath(root)), parts_of(os.path.realpath(path))
    return real[len(real_root) :] if real[: len(real_root)] == real_root else None
