"""Archives: folders and S3 prefixes of images that re-scoring may read, below the roots that the settings name."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from core.errors import Code, Refused
from core.settings import Settings
from core.storage.buckets import Bucket, parts_of_url
from core.storage.folders import Folder, inside_root, parts_of, path_of_url
from core.storage.locations import ArchiveLocation, ArchiveUnavailable

__all__ = ["ArchiveLocation", "ArchiveUnavailable", "Archives"]

_VARIABLE = "LINEWATCH_ARCHIVE_ROOTS"


class _Root(Protocol):
    """Where archives may lie; what is asked for below it is given in parts."""

    def parts_below(self, given: str) -> list[str] | None:
        """The parts below this root of what is named absolutely; None if it is not below it."""

    def is_away(self) -> bool:
        """Whether nothing can be said of what is below it, from here and now."""

    def place(self, parts: Sequence[str]) -> ArchiveLocation:
        """The folder or prefix; refuses what leads out of the root, or is not there."""

    def require_file(self, parts: Sequence[str]) -> None:
        """Refuse a file that leads out of the root, or is not there."""


@dataclass(frozen=True)
class _FolderRoot:
    path: Path

    def parts_below(self, given: str) -> list[str] | None:
        path = path_of_url(given) if "://" in given else given
        own = parts_of(str(self.path))
        if path is None or not path.startswith("/") or parts_of(path)[: len(own)] != own:
            return None
        return parts_of(path)[len(own) :]

    def is_away(self) -> bool:
        return not os.access(self.path, os.R_OK | os.X_OK)

    def place(self, parts: Sequence[str]) -> ArchiveLocation:
        return Folder(self.path, parts if self.is_away() else self._inside(parts, "folder", Path.is_dir))

    def require_file(self, parts: Sequence[str]) -> None:
        if not self.is_away():
            self._inside(parts, "file", Path.is_file)

    def _inside(self, parts: Sequence[str], kind: str, is_one: Callable[[Path], bool]) -> list[str]:
        path = self.path.joinpath(*parts)
        inside = inside_root(self.path, path)
        if inside is None:
            raise _refused(f"{path} is a symbolic link out of {self.path}, which re-scoring does not leave.")
        try:
            found = is_one(self.path.joinpath(*inside))
        except OSError:  # a folder on the way cannot be entered
            found = False
        if not found:
            raise _refused(f"There is no {kind} {path}, or it cannot be reached.")
        return inside


@dataclass(frozen=True)
class _BucketRoot:
    bucket: str
    prefix: tuple[str, ...]

    def parts_below(self, given: str) -> list[str] | None:
        own = [self.bucket, *self.prefix]
        parts = parts_of_url(given)
        return None if parts is None or parts[: len(own)] != own else parts[len(own) :]

    def is_away(self) -> bool:
        try:
            Bucket(self.bucket, self.prefix).check()
        except ArchiveUnavailable:
            return True
        return False

    def place(self, parts: Sequence[str]) -> ArchiveLocation:
        place = Bucket(self.bucket, self.prefix, parts)
        try:
            is_there = not parts or place.holds_any()
        except ArchiveUnavailable:
            return place
        if not is_there:
            raise _refused(f"There is nothing below {place.url}.")
        return place

    def require_file(self, parts: Sequence[str]) -> None:
        place = Bucket(self.bucket, self.prefix, parts[:-1])
        try:
            is_there = place.holds(parts[-1])
        except ArchiveUnavailable:
            return
        if not is_there:
            raise _refused(f"There is no {place.url_of(parts[-1])}.")


class Archives:
    """The roots, and how to get from what a person names to a place below one of them."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._names = list(roots)
        self._roots = [_root(one) for one in roots]

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of `LINEWATCH_ARCHIVE_ROOTS`."""
        return cls(settings.archive_root_list)

    @property
    def roots(self) -> list[ArchiveLocation]:
        """Each root as a whole, whether or not it is there."""
        return [
            Folder(one.path) if isinstance(one, _FolderRoot) else Bucket(one.bucket, one.prefix) for one in self._roots
        ]

    def locate(self, given: str) -> ArchiveLocation:
        """The folder or the prefix that is meant by an absolute path, a URL, or a path relative to a root.

        If its root is away, as it may be for the api, it is taken as written: reading will show.

        Raises:
            Refused: SOURCE_REFUSED for what is outside every root, also by `..` or a symbolic link, or not there; and
                where no root is configured.
        """
        return self._find(given, lambda root, parts: root.place(parts))[0]

    def locate_file(self, given: str) -> tuple[ArchiveLocation, str]:
        """The same for a file: its folder or prefix, and its name in there."""
        place, parts = self._find(given, lambda root, parts: _place_of_file(root, parts, given))
        return place, parts[-1]

    def _find(
        self, given: str, look: Callable[[_Root, list[str]], ArchiveLocation]
    ) -> tuple[ArchiveLocation, list[str]]:
        """The place that is looked for, and its parts below its root; `look` refuses what is not there."""
        candidates = self._candidates(given)
        refusals, away = [], []
        for root, parts in candidates:
            if len(candidates) > 1 and root.is_away():
                away.append((root, parts))
                continue
            try:
                return look(root, parts), parts
            except Refused as refusal:
                refusals.append(refusal)
        if not away:
            raise refusals[0]
        root, parts = away[0]
        return look(root, parts), parts

    def _candidates(self, given: str) -> list[tuple[_Root, list[str]]]:
        if not self._roots:
            raise _refused(f"No folder may be read for re-scoring: set {_VARIABLE}, for example to /archive.")
        is_absolute = "://" in given or given.startswith("/")
        below = [(one, one.parts_below(given) if is_absolute else parts_of(given)) for one in self._roots]
        found: list[tuple[_Root, list[str]]] = [
            (root, parts) for root, parts in below if parts is not None and ".." not in parts
        ]
        if not found:
            raise _refused(f"{given} is not below {' or '.join(self._names)}; {_VARIABLE} says what may be read.")
        if is_absolute:  # of roots below each other, the innermost: it was named with care
            return [min(found, key=lambda one: len(one[1]))]
        return found


def _place_of_file(root: _Root, parts: list[str], given: str) -> ArchiveLocation:
    if not parts:
        raise _refused(f"{given} is no file.")
    root.require_file(parts)
    return root.place(parts[:-1])


def _refused(detail: str) -> Refused:
    return Refused(Code.SOURCE_REFUSED, detail)


def _root(name: str) -> _FolderRoot | _BucketRoot:
    if (parts := parts_of_url(name)) is not None:
        return _BucketRoot(parts[0], tuple(parts[1:]))
    return _FolderRoot(Path((path_of_url(name) if "://" in name else name) or "/"))
