"""Manifests: lists of archive images with their fields, one JSON object per line or one CSV row per image.

They are UTF-8, with or without a byte order mark, and read sequentially in bounded memory. An invalid line becomes an
entry with a failure. Only blank lines are skipped.
"""

import csv
import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.errors import Code, Failure, Refused
from core.intake.fields import Label, Metadata, Moment, parse_json, refuse_unstorable
from core.intake.image_decoding import Undecodable
from core.storage.archive_location import ArchiveLocation

LINE_BYTES = 64 * 1024
"""Longest valid line or row."""

Position = dict[str, int]

_KINDS: dict[str, Literal["json", "csv"]] = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv"}
_MARK = b"\xef\xbb\xbf"
_DETAIL = 500


@dataclass(frozen=True)
class Entry:
    """An image of a manifest, or an invalid line.

    Attributes:
        position: pass it as `after` to continue behind this entry; JSON.
        item: `path` and the other fields, or `failure` with code and detail; JSON.
    """

    position: Position
    item: dict[str, Any]


class _Fields(BaseModel):
    """The fields of a line. Any others become metadata."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(refuse_unstorable)]
    external_id: Label | None = None
    part_id: Label | None = None
    lot_id: Label | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    captured_at: Moment | None = None
    metadata: Metadata = Field(default_factory=dict)


class _Line(NamedTuple):
    """A line of the file. `content` is None if it is too long; `end` is the byte offset of the next line."""

    number: int
    content: bytes | None
    end: int

    @property
    def position(self) -> Position:
        return {"offset": self.end, "line": self.number}


def entries(location: ArchiveLocation, name: str, after: Position | None) -> Iterator[Entry]:
    """The entries of a manifest in file order, strictly after a position that an earlier call returned.

    Paths are relative to the manifest's folder, or absolute paths or URLs below the same root. They are checked when
    the images are read, not here.

    Raises:
        Refused: SOURCE_REFUSED if the file is not a manifest, does not exist or has changed since the earlier call.
        core.storage.archive_location.ArchiveUnavailable: at any point of the iteration.
    """
    kind = _KINDS.get(PurePosixPath(name).suffix.lower())
    if kind is None:
        raise _refused(f"{name} is not a manifest: its suffix must be one of {', '.join(_KINDS)}.")
    try:
        lines = _lines(location, name, after)
        if kind == "json":
            yield from _of_json(lines)
        else:
            header = _header(_lines(location, name, None) if after else lines, name)
            yield from _of_csv(lines, header)
    except Undecodable as fault:
        raise _refused(f"The manifest {location.url_of(name)} cannot be read: {fault.detail}") from fault


def _refused(detail: str) -> Refused:
    return Refused(Code.SOURCE_REFUSED, detail)


def _lines(location: ArchiveLocation, name: str, after: Position | None) -> Iterator[_Line]:
    """The lines with their end offsets, in bounded memory even for very long lines."""
    end, number = (after["offset"], after["line"]) if after else (0, 0)
    line, is_too_long = bytearray(), False
    for block in _blocks(location, name, end):
        pieces = block.split(b"\n")
        for at, piece in enumerate(pieces):
            is_complete = at < len(pieces) - 1
            end += len(piece) + is_complete
            is_too_long = is_too_long or len(line) + len(piece) > LINE_BYTES
            if not is_too_long:
                line += piece
            if is_complete:
                number += 1
                yield _line(number, None if is_too_long else bytes(line), end)
                line, is_too_long = bytearray(), False
    if line or is_too_long:
        yield _line(number + 1, None if is_too_long else bytes(line), end)


def _line(number: int, content: bytes | None, end: int) -> _Line:
    return _Line(number, content.removeprefix(_MARK) if content and number == 1 else content, end)


def _blocks(location: ArchiveLocation, name: str, offset: int) -> Iterator[bytes]:
    """The content from an offset, which must be the start of a line."""
    blocks = location.blocks(name, max(0, offset - 1))
    if offset > 0:
        first = next(blocks, b"")
        # A single byte may be the end of a file without a final newline.
        if not first or (len(first) > 1 and first[:1] != b"\n"):
            raise _refused(f"The manifest {location.url_of(name)} has changed since the first read.")
        yield first[1:]
    yield from blocks


def _of_json(lines: Iterator[_Line]) -> Iterator[Entry]:
    for line in lines:
        if line.content is None:
            yield _invalid(line.number, line.position, _TOO_LONG)
        elif line.content.strip():
            yield _of_line(line.number, line.position, line.content)


def _of_line(number: int, position: Position, content: bytes) -> Entry:
    try:
        fields = parse_json(content.decode())
    except UnicodeDecodeError:
        return _invalid(number, position, "is not UTF-8")
    except json.JSONDecodeError as error:
        return _invalid(number, position, f"is not valid JSON: {error.msg}, at character {error.colno}")
    except ValueError as error:
        return _invalid(number, position, f"{error}")
    if not isinstance(fields, dict):
        return _invalid(number, position, "is not a JSON object")
    return _entry(number, position, fields)


_TOO_LONG = f"is longer than {LINE_BYTES} bytes"


class _InvalidRow(Exception):  # noqa: N818 - describes the fault
    """A CSV row that cannot be parsed."""


class _Rows:
    """Feeds lines to the csv module. If a row is invalid, parsing restarts after its first line."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._pending: deque[_Line] = deque()
        self._row_lines: list[_Line] = []
        self._row_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._pending.popleft() if self._pending else next(self._lines)
        self._row_lines.append(line)
        self._row_bytes += len(line.content or b"")
        if line.content is None:
            raise _InvalidRow(_TOO_LONG)
        if self._row_bytes > LINE_BYTES:
            raise _InvalidRow(f"{_TOO_LONG} with the lines that follow: a quote is not closed")
        try:
            return line.content.decode() + "\n"
        except UnicodeDecodeError:
            raise _InvalidRow("is not UTF-8") from None

    def parse(self) -> Iterator[tuple[_Line, Position, list[str] | str]]:
        """For each row: its first line, the position behind the row, and its values or an error text."""
        reader = csv.reader(self, strict=True)
        while True:
            self._row_lines, self._row_bytes = [], 0
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, _InvalidRow) as error:
                first, *rest = self._row_lines
                # Only the first line is invalid: an unclosed quote must not swallow the lines after it.
                self._pending.extendleft(reversed(rest))
                reader = csv.reader(self, strict=True)
                yield first, first.position, f"{error}"
            else:
                yield self._row_lines[0], self._row_lines[-1].position, row


def _header(lines: Iterator[_Line], name: str) -> list[str]:
    """The column names. Consumes only the lines of the header."""
    _, _, header = next(_Rows(lines).parse(), (None, None, "is missing"))
    if isinstance(header, str):
        raise _refused(f"The header of {name} is invalid: {header}.")
    names = [column.strip() for column in header]
    if "path" not in names or len(set(names)) != len(names):
        raise _refused(f"The header of {name} must contain the column path, and no column twice.")
    return names


def _of_csv(lines: Iterator[_Line], header: list[str]) -> Iterator[Entry]:
    for line, position, row in _Rows(lines).parse():
        if isinstance(row, str):
            yield _invalid(line.number, position, row)
        elif row and len(row) != len(header):
            yield _invalid(line.number, position, f"has {len(row)} values, but the header has {len(header)}")
        elif row:
            fields = {column: value for column, value in zip(header, row, strict=True) if value}
            yield _entry(line.number, position, fields)


def _entry(number: int, position: Position, fields: dict[str, Any]) -> Entry:
    others = {name: value for name, value in fields.items() if value is not None}
    known = {name: others.pop(name) for name in _Fields.model_fields if name in others}
    try:
        valid = _Fields.model_validate(known)
        if others:
            valid = _Fields.model_validate({**known, "metadata": {**others, **valid.metadata}})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        why = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)
        return _invalid(number, position, why, known.get("path"))
    item = valid.model_dump(mode="json", exclude_none=True)
    if not valid.metadata:
        del item["metadata"]
    return Entry(position, item)


def _invalid(number: int, position: Position, why: str, path: Any = None) -> Entry:
    item: dict[str, Any] = {"failure": [Failure.MANIFEST_LINE_INVALID.value, f"line {number}: {why}"[:_DETAIL]]}
    with suppress(ValidationError):  # the path itself may be invalid
        item["path"] = _Fields(path=path).path
    return Entry(position, item)
