"""Copy files from one store to another, and verify the checksum of each."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Literal, TypeVar

from core.storage.image_store import Staged, Store

GROUP = 32
"""So many files share the cost of becoming durable in a folder. They stay open until then."""
_CHUNK = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """A file of the store; size and SHA-256 are None if they are not known yet."""

    key: str
    bytes: int | None
    sha256: str | None


@dataclass(frozen=True)
class Copy:
    """What was done with a file.

    Attributes:
        outcome: `missing` and `damaged` are about the source.
        file: with the size and the SHA-256 of what was read; as requested if nothing was.
    """

    outcome: Literal["copied", "kept", "missing", "damaged"]
    file: File


@dataclass
class Copies:
    """What was done with all files."""

    copied: int = 0
    copied_bytes: int = 0
    kept: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The number of files so far."""
        return self.copied + self.kept + len(self.missing) + len(self.damaged)

    def add(self, copy: Copy) -> None:
        if copy.outcome == "copied":
            self.copied += 1
            self.copied_bytes += copy.file.bytes or 0
        elif copy.outcome == "kept":
            self.kept += 1
        else:
            (self.missing if copy.outcome == "missing" else self.damaged).append(copy.file.key)


def copy_files(
    source: Store, target: Store, files: Iterable[File], on_copy: Callable[[Copy], None], *, verify_kept: bool = False
) -> None:
    """Copy the files that the target lacks. Each is in the target complete, durable and with its checksum, or not.

    A file that the target has in the right size is kept. Files never change once they are written. At most as many
    files are copied at the same time as the stores have threads.

    Args:
        on_copy: called for each file, in order.
        verify_kept: whether to read the files that the target has, and replace those with a wrong checksum.

    Raises:
        OSError: the target cannot be written, or the source is unavailable.
    """
    copy = partial(_copy_group, source, target, verify_kept=verify_kept)
    threads, group = max(source.threads, target.threads), GROUP if target.is_local else 1
    with ThreadPoolExecutor(threads) as pool:
        for round_ in _groups(files, threads * group):  # so that few files are listed ahead
            for copies in pool.map(copy, _groups(round_, group)):
                for each in copies:
                    on_copy(each)


def _groups(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while group := list(islice(iterator, size)):
        yield group


def _copy_group(source: Store, target: Store, files: list[File], *, verify_kept: bool) -> list[Copy]:
    copies: list[Copy] = []
    staged: list[tuple[Staged, str]] = []
    try:
        for file in files:
            if _has(target, file, verify=verify_kept):
                copies.append(Copy("kept", file))
                continue
            draft = target.stage()
            staged.append((draft, file.key))
            copies.append(_copy(source, file, draft))
            if copies[-1].outcome != "copied":
                staged.pop()[0].discard()
        target.publish(staged)
    except BaseException:
        for draft, _ in staged:
            draft.discard()
        raise
    return copies


def _has(target: Store, file: File, *, verify: bool) -> bool:
    if file.sha256 is None or file.bytes is None or target.size(file.key) != file.bytes:
        return False
    if not verify:
        return True
    digest = sha256()
    with target.local_file(file.key) as path, path.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256


def _copy(source: Store, file: File, draft: Staged) -> Copy:
    with source.local_file(file.key) as path, ExitStack() as stack:
        try:
            content = stack.enter_context(path.open("rb"))
        except FileNotFoundError:
            return Copy("missing", file)
        while True:
            try:
                chunk = content.read(_CHUNK)
            except OSError:  # a bad block
                return Copy("damaged", file)
            if not chunk:
                break
            draft.write(chunk)
    if file.sha256 not in (None, draft.sha256.hex()):
        return Copy("damaged", file)
    draft.flush()
    return Copy("copied", File(file.key, draft.size, draft.sha256.hex()))
