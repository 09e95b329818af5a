"""The bodies of uploads: images, their fields, bundles. Each can be built again for a retry."""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

Body = Mapping[str, Any]
"""Arguments of `httpx.Client.build_request` that make a body."""

ImageFile = str | os.PathLike[str] | bytes | BinaryIO
"""An image: a path, its encoded bytes, or an open binary file."""


class SentCounter:
    """Counts images that have been sent, and reports the count."""

    def __init__(self, report: Callable[[int], None] | None) -> None:
        self._report = report
        self._sent = 0

    def count(self) -> None:
        self._sent += 1
        if self._report is not None:
            self._report(self._sent)


@dataclass(frozen=True)
class BorrowedFile:
    """A file that the caller holds open, and its position when it was passed in."""

    file: BinaryIO
    start: int


Source = Path | bytes | BorrowedFile
"""What can be read more than once."""


class FilePart:
    """An image as httpx reads it. Its file is open only while it is read: a thousand images need one descriptor."""

    def __init__(self, source: Source, on_end: Callable[[], None] = lambda: None) -> None:
        self._source = source
        self._on_end = on_end
        self._file: IO[bytes] | None = None

    def read(self, size: int = -1) -> bytes:
        if self._file is None:
            self._file = self._opened()
        chunk = self._file.read(size)
        if not chunk:
            self.close()
            self._on_end()
        return chunk

    def _opened(self) -> IO[bytes]:
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        if isinstance(self._source, Path):
            return self._source.open("rb")
        self._source.file.seek(self._source.start)
        return self._source.file

    def close(self) -> None:
        """Close the file, unless the caller opened it."""
        if self._file is not None and not isinstance(self._source, BorrowedFile):
            self._file.close()

    def tell(self) -> int:
        return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """httpx seeks to the end to learn the size, and back to the start."""
        if whence != io.SEEK_END:
            return 0
        if isinstance(self._source, bytes):
            return len(self._source)
        if isinstance(self._source, Path):
            return self._source.stat().st_size
        return self._source.file.seek(0, io.SEEK_END) - self._source.start


def open_image(image: ImageFile) -> tuple[str | None, Source]:
    """The name of an image, if it has one, and a source that can be read more than once.

    The content is held in memory only if an open file cannot seek, such as a pipe.
    """
    if isinstance(image, bytes):
        return None, image
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return safe_filename(path.name), path
    name = getattr(image, "name", None)
    source = BorrowedFile(image, image.tell()) if image.seekable() else image.read()
    return safe_filename(Path(name).name) if isinstance(name, str) else None, source


def safe_filename(name: str) -> str:
    """A file's name as Unicode; bytes that are not UTF-8 become `?`."""
    return name.encode(errors="replace").decode()


def as_text(fields: Mapping[str, Any]) -> dict[str, str]:
    """Fields as the text that forms and queries carry."""
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


@contextmanager
def form(fields: Mapping[str, Any], name: str, parts: Sequence[tuple[str | None, FilePart]]) -> Iterator[Body]:
    """A multipart body. The server detects the type of the images."""
    try:
        yield {
            "data": as_text(fields),
            "files": [
                (name, (file_name, cast(BinaryIO, part), "application/octet-stream")) for file_name, part in parts
            ],
        }
    finally:
        for _, part in parts:
            part.close()


@contextmanager
def form_of_fields(fields: Mapping[str, Any]) -> Iterator[Body]:
    """A multipart body of fields only; an empty body if there are no fields."""
    texts = as_text(fields)
    yield {"files": [(name, (None, text)) for name, text in texts.items()]} if texts else {}


@contextmanager
def as_json(value: Mapping[str, Any]) -> Iterator[Body]:
    """A JSON body."""
    yield {"json": value}


def tar_of(bundle: Path) -> IO[bytes]:
    """A bundle as an uncompressed tar, the same bytes for the same folder."""
    if not bundle.is_dir():
        return bundle.open("rb")
    tar = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(path for path in bundle.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(path.relative_to(bundle).as_posix())
            member.size = path.stat().st_size
            member.mode = 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)
    return tar


@contextmanager
def bundle_body(tar: IO[bytes]) -> Iterator[Body]:
    """A bundle as a body."""
    tar.seek(0)
    yield {"content": tar, "headers": {"Content-Type": "application/x-tar"}}
