"""Manifests: lists of images in an archive, one a line of JSON or a row of CSV, with what is known of each.

They are UTF-8, with or without a byte order mark, and read from front to back in bounded memory. A line that cannot be
used becomes an item that fails alone; nothing is left out.
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
from core.storage.locations import ArchiveLocation

LINE_BYTES = 64 * 1024
"""A longer line, or row, is invalid."""

Position = dict[str, int]

_KINDS: dict[str, Literal["json", "csv"]] = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv"}
_MARK = b"\xef\xbb\xbf"
_DETAIL = 500


@dataclass(frozen=True)
class Entry:
    """An image of a manifest, or a line that names none.

    Attributes:
        position: what to give as `after` to go on behind it; JSON.
        item: `path` and what else is known, or `failure` with its code and its detail; JSON.
    """

    position: Position
    item: dict[str, Any]


class _Named(BaseModel):
    """What a line says; whatever else it says becomes metadata."""

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
    """A line of the file; `content` is None where it is too long. `end` is the offset of the next one."""

    number: int
    content: bytes | None
    end: int

    @property
    def position(self) -> Position:
        return {"offset": self.end, "line": self.number}


def entries(place: ArchiveLocation, name: str, after: Position | None) -> Iterator[Entry]:
    """What a manifest lists, in its order, strictly behind a position of an earlier reading.

    Paths in it are relative to its folder, or absolute or URLs below the same root; whether they lead out of it is seen
    when they are read.

    Raises:
        Refused: SOURCE_REFUSED where it is no manifest, is missing or is not the one that was read before.
        core.storage.locations.ArchiveUnavailable: also in the midst of it.
    """
    kind = _KINDS.get(PurePosixPath(name).suffix.lower())
    if kind is None:
        raise _refused(f"{name} is no manifest: its name ends in {', '.join(_KINDS)}.")
    try:
        lines = _lines(place, name, after)
        if kind == "json":
            yield from _of_json(lines)
        else:
            header = _header(_lines(place, name, None) if after else lines, name)
            yield from _of_csv(lines, header)
    except Undecodable as fault:
        raise _refused(f"The manifest {place.url_of(name)} cannot be read: {fault.detail}") from fault


def _refused(detail: str) -> Refused:
    return Refused(Code.SOURCE_REFUSED, detail)


def _lines(place: ArchiveLocation, name: str, after: Position | None) -> Iterator[_Line]:
    """The lines with their ends, however long they are, in bounded memory."""
    end, number = (after["offset"], after["line"]) if after else (0, 0)
    line, is_too_long = bytearray(), False
    for block in _blocks(place, name, end):
        pieces = block.split(b"\n")
        for at, piece in enumerate(pieces):
            is_whole = at < len(pieces) - 1
            end += len(piece) + is_whole
            is_too_long = is_too_long or len(line) + len(piece) > LINE_BYTES
            if not is_too_long:
                line += piece
            if is_whole:
                number += 1
                yield _line(number, None if is_too_long else bytes(line), end)
                line, is_too_long = bytearray(), False
    if line or is_too_long:
        yield _line(number + 1, None if is_too_long else bytes(line), end)


def _line(number: int, content: bytes | None, end: int) -> _Line:
    return _Line(number, content.removeprefix(_MARK) if content and number == 1 else content, end)


def _blocks(place: ArchiveLocation, name: str, offset: int) -> Iterator[bytes]:
    """The bytes from an offset on, at which a line begins."""
    blocks = place.blocks(name, max(0, offset - 1))
    if offset > 0:
        first = next(blocks, b"")
        if not first or (len(first) > 1 and first[:1] != b"\n"):  # of one byte: the file may end without a newline
            raise _refused(f"The manifest {place.url_of(name)} has changed since its reading began.")
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
        said = parse_json(content.decode())
    except UnicodeDecodeError:
        return _invalid(number, position, "is not UTF-8")
    except json.JSONDecodeError as error:
        return _invalid(number, position, f"is not valid JSON: {error.msg}, at character {error.colno}")
    except ValueError as error:
        return _invalid(number, position, f"{error}")
    if not isinstance(said, dict):
        return _invalid(number, position, "is no JSON object")
    return _entry(number, position, said)


_TOO_LONG = f"is longer than {LINE_BYTES} bytes"


class _Unusable(Exception):  # noqa: N818 - it reads as what the row is
    """A row that cannot be taken as one."""


class _Rows:
    """The lines as the csv module takes them, with those of the present row at hand, to begin again after the first."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines = lines
        self._again: deque[_Line] = deque()
        self._taken: list[_Line] = []
        self._bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        self._bytes += len(line.content or b"")
        if line.content is None:
            raise _Unusable(_TOO_LONG)
        if self._bytes > LINE_BYTES:
            raise _Unusable(f"{_TOO_LONG} with those that follow: a quote is not closed")
        try:
            return line.content.decode() + "\n"
        except UnicodeDecodeError:
            raise _Unusable("is not UTF-8") from None

    def parsed(self) -> Iterator[tuple[_Line, Position, list[str] | str]]:
        """Each row: its first line, the position behind it, and its values, or what is wrong with it."""
        reader = csv.reader(self, strict=True)
        while True:
            self._taken, self._bytes = [], 0
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, _Unusable) as error:
                first, *rest = self._taken
                # Only the first line is lost: with a quote that is not closed it would take the others with it.
                self._again.extendleft(reversed(rest))
                reader = csv.reader(self, strict=True)
                yield first, first.position, f"{error}"
            else:
                yield self._taken[0], self._taken[-1].position, row


def _header(lines: Iterator[_Line], name: str) -> list[str]:
    """The names of the columns; takes its lines, and no more."""
    _, _, header = next(_Rows(lines).parsed(), (None, None, "is missing"))
    if isinstance(header, str):
        raise _refused(f"The header of {name} {header}.")
    names = [one.strip() for one in header]
    if "path" not in names or len(set(names)) != len(names):
        raise _refused(f"The header of {name} must name each column once, and one of them path.")
    return names


def _of_csv(lines: Iterator[_Line], header: list[str]) -> Iterator[Entry]:
    for line, position, row in _Rows(lines).parsed():
        if isinstance(row, str):
            yield _invalid(line.number, position, row)
        elif row and len(row) != len(header):
            yield _invalid(line.number, position, f"has {len(row)} values, and the header {len(header)}")
        elif row:
            said = {column: value for column, value in zip(header, row, strict=True) if value}
            yield _entry(line.number, position, said)


def _entry(number: int, position: Position, said: dict[str, Any]) -> Entry:
    said = {name: value for name, value in said.items() if value is not None}
    known = {name: said.pop(name) for name in _Named.model_fields if name in said}
    try:
        named = _Named.model_validate(known)
        if said:
            named = _Named.model_validate({**known, "metadata": {**said, **named.metadata}})
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        why = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in faults)
        return _invalid(number, position, why, known.get("path"))
    item = named.model_dump(mode="json", exclude_none=True)
    if not named.metadata:
        del item["metadata"]
    return Entry(position, item)


def _invalid(number: int, position: Position, why: str, path: Any = None) -> Entry:
    item: dict[str, Any] = {"failure": [Failure.MANIFEST_LINE_INVALID.value, f"line {number}: {why}"[:_DETAIL]]}
    with suppress(ValidationError):  # it may be what is wrong
        item["path"] = _Named(path=path).path
    return Entry(position, item)
