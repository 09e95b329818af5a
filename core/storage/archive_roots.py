"""Archives: the folders and S3 prefixes that re-scoring may read, below the configured roots."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from core.errors import Code, Refused
from core.settings import Settings
from core.storage.archive_buckets import Bucket
from core.storage.archive_folders import Folder, inside_root, parts_of, path_of_url
from core.storage.archive_location import ArchiveLocation, ArchiveUnavailable
from core.storage.buckets import parts_of_url

__all__ = ["ArchiveLocation", "ArchiveUnavailable", "Archives"]

_VARIABLE = "LINEWATCH_ARCHIVE_ROOTS"


class _Root(Protocol):
    """A configured root. Locations below it are given by their path parts."""

    def parts_below(self, path_or_url: str) -> list[str] | None:
        """The parts of an absolute path or URL below this root; None if it is not below it."""

    def is_unavailable(self) -> bool:
        """Whether this process cannot currently check what exists below the root."""

    def locate(self, parts: Sequence[str]) -> ArchiveLocation:
        """The folder or prefix. Refused if it leads out of the root or does not exist."""

    def require_file(self, parts: Sequence[str]) -> None:
        """Refuse a file that leads out of the root or does not exist."""


@dataclass(frozen=True)
class _FolderRoot:
    path: Path

    def parts_below(self, path_or_url: str) -> list[str] | None:
        path = path_of_url(path_or_url) if "://" in path_or_url else path_or_url
        root = parts_of(str(self.path))
        if path is None or not path.startswith("/") or parts_of(path)[: len(root)] != root:
            return None
        return parts_of(path)[len(root) :]

    def is_unavailable(self) -> bool:
        return not os.access(self.path, os.R_OK | os.X_OK)

    def locate(self, parts: Sequence[str]) -> ArchiveLocation:
        return Folder(self.path, parts if self.is_unavailable() else self._inside(parts, "folder", Path.is_dir))

    def require_file(self, parts: Sequence[str]) -> None:
        if not self.is_unavailable():
            self._inside(parts, "file", Path.is_file)

    def _inside(self, parts: Sequence[str], kind: str, has_kind: Callable[[Path], bool]) -> list[str]:
        path = self.path.joinpath(*parts)
        inside = inside_root(self.path, path)
        if inside is None:
            raise _refused(f"{path} is a symbolic link out of {self.path}. Re-scoring does not follow it.")
        try:
            exists = has_kind(self.path.joinpath(*inside))
        except OSError:  # no permission on a parent folder
            exists = False
        if not exists:
            raise _refused(f"The {kind} {path} does not exist or cannot be accessed.")
        return inside


@dataclass(frozen=True)
class _BucketRoot:
    bucket: str
    prefix: tuple[str, ...]

    def parts_below(self, path_or_url: str) -> list[str] | None:
        root = [self.bucket, *self.prefix]
        parts = parts_of_url(path_or_url)
        return None if parts is None or parts[: len(root)] != root else parts[len(root) :]

    def is_unavailable(self) -> bool:
        try:
            Bucket(self.bucket, self.prefix).check()
        except ArchiveUnavailable:
            return True
        return False

    def locate(self, parts: Sequence[str]) -> ArchiveLocation:
        location = Bucket(self.bucket, self.prefix, parts)
        try:
            exists = not parts or location.holds_any()
        except ArchiveUnavailable:
            return location
        if not exists:
            raise _refused(f"No object exists below {location.url}.")
        return location

    def require_file(self, parts: Sequence[str]) -> None:
        location = Bucket(self.bucket, self.prefix, parts[:-1])
        try:
            exists = location.holds(parts[-1])
        except ArchiveUnavailable:
            return
        if not exists:
            raise _refused(f"{location.url_of(parts[-1])} does not exist.")


class Archives:
    """The configured roots; resolves a user's path or URL to a location below one of them."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._names = list(roots)
        self._roots = [_root(name) for name in roots]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The roots of `LINEWATCH_ARCHIVE_ROOTS`."""
        return cls(settings.archive_root_list)

    @property
    def roots(self) -> list[ArchiveLocation]:
        """Every root, whether or not it exists."""
        return [
            Folder(root.path) if isinstance(root, _FolderRoot) else Bucket(root.bucket, root.prefix)
            for root in self._roots
        ]

    def locate(self, path_or_url: str) -> ArchiveLocation:
        """The folder or prefix for an absolute path, a URL, or a path relative to a root.

        If the root is unavailable, as it may be on the API's machine, the location is not checked; reading it will.

        Raises:
            Refused: SOURCE_REFUSED if it is outside every root (also by `..` or a symbolic link), does not exist, or no
                root is configured.
        """
        return self._find(path_or_url, lambda root, parts: root.locate(parts))[0]

    def locate_file(self, path_or_url: str) -> tuple[ArchiveLocation, str]:
        """Like `locate`, for a file: its folder or prefix, and its name there."""
        location, parts = self._find(path_or_url, lambda root, parts: _location_of_file(root, parts, path_or_url))
        return location, parts[-1]

    def _find(
        self, path_or_url: str, locate: Callable[[_Root, list[str]], ArchiveLocation]
    ) -> tuple[ArchiveLocation, list[str]]:
        """The location and its parts below its root. `locate` raises Refused if it does not exist there."""
        candidates = self._candidates(path_or_url)
        refusals, unavailable = [], []
        for root, parts in candidates:
            if len(candidates) > 1 and root.is_unavailable():
                unavailable.append((root, parts))
                continue
            try:
                return locate(root, parts), parts
            except Refused as refusal:
                refusals.append(refusal)
        if not unavailable:
            raise refusals[0]
        root, parts = unavailable[0]
        return locate(root, parts), parts

    def _candidates(self, path_or_url: str) -> list[tuple[_Root, list[str]]]:
        if not self._roots:
            raise _refused(f"No archive root is configured: set {_VARIABLE}, for example to /archive.")
        is_absolute = "://" in path_or_url or path_or_url.startswith("/")
        relative = parts_of(path_or_url)
        below = [(root, root.parts_below(path_or_url) if is_absolute else relative) for root in self._roots]
        candidates: list[tuple[_Root, list[str]]] = [
            (root, parts) for root, parts in below if parts is not None and ".." not in parts
        ]
        if not candidates:
            raise _refused(f"{path_or_url} is not below an archive root: {', '.join(self._names)} ({_VARIABLE}).")
        if is_absolute:  # if roots are nested, use the innermost
            return [min(candidates, key=lambda candidate: len(candidate[1]))]
        return candidates


def _location_of_file(root: _Root, parts: list[str], path_or_url: str) -> ArchiveLocation:
    if not parts:
        raise _refused(f"{path_or_url} is an archive root, not a file.")
    root.require_file(parts)
    return root.locate(parts[:-1])


def _refused(detail: str) -> Refused:
    return Refused(Code.SOURCE_REFUSED, detail)


def _root(name: str) -> _FolderRoot | _BucketRoot:
    if (parts := parts_of_url(name)) is not None:
        return _BucketRoot(parts[0], tuple(parts[1:]))
    return _FolderRoot(Path((path_of_url(name) if "://" in name else name) or "/"))
