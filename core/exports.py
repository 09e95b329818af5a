"""Exports: inspections as one flat table, one row each, as CSV or Parquet, written while they are read.

Neither format ever holds more than a page or one row group, and no transaction is open while what was read is sent.
"""

import csv
import datetime as dt
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine

from core.inspections import MAX_PAGE, Filters, Inspection, Review, list_page

Page = Sequence[Inspection]

# A row group is written when it has reached either; it is the most that is held in memory.
ROW_GROUP_ROWS = 16 * MAX_PAGE
ROW_GROUP_BYTES = 16 * 1024 * 1024

_TEXT = pa.string()
_TIME = pa.timestamp("us", tz="UTC")
_DOUBLE = pa.float64()
_COUNT = pa.int64()


@dataclass(frozen=True)
class Column:
    """One column: its name in both formats, its type in Parquet, and where its value comes from."""

    name: str
    type: pa.DataType
    value: Callable[[Inspection], Any]


def _own(name: str, kind: pa.DataType) -> Column:
    return Column(name, kind, attrgetter(name))


def _of_review(name: str, kind: pa.DataType, value: Callable[[Review], Any]) -> Column:
    """What the newest review says, which is the one that counts."""
    return Column(name, kind, lambda one: value(one.reviews[-1]) if one.reviews else None)


def _timing(name: str) -> Column:
    return Column(f"{name}_ms", _DOUBLE, lambda one: one.timings_ms.get(name))


def _model_sha256(one: Inspection) -> str | None:
    return None if one.model_sha256 is None else one.model_sha256.hex()


COLUMNS = (
    Column("id", _TEXT, lambda one: str(one.id)),
    _own("status", _TEXT),
    _own("recipe", _TEXT),
    _own("priority", _TEXT),
    Column("batch_id", _TEXT, lambda one: None if one.batch_id is None else str(one.batch_id)),
    _own("external_id", _TEXT),
    _own("part_id", _TEXT),
    _own("view", _TEXT),
    _own("lot_id", _TEXT),
    _own("line_id", _TEXT),
    _own("station_id", _TEXT),
    _own("captured_at", _TIME),
    _own("deadline_at", _TIME),
    _own("created_at", _TIME),
    _own("started_at", _TIME),
    _own("finished_at", _TIME),
    _own("anomaly_score", _DOUBLE),
    _own("threshold", _DOUBLE),
    _own("review_threshold", _DOUBLE),
    _own("is_anomaly", pa.bool_()),
    _own("verdict", _TEXT),
    _own("effective_verdict", _TEXT),
    _of_review("reviewer", _TEXT, attrgetter("reviewer")),
    _of_review("review_reason", _TEXT, attrgetter("reason")),
    _of_review("reviewed_at", _TIME, attrgetter("created_at")),
    _own("model_version", _COUNT),
    Column("model_sha256", _TEXT, _model_sha256),
    Column("image_sha256", _TEXT, lambda one: one.image_sha256.hex()),
    _own("image_width", _COUNT),
    _own("image_height", _COUNT),
    _own("image_bytes", _COUNT),
    _own("image_media_type", _TEXT),
    _own("reasons", pa.list_(_TEXT)),
    _own("error_code", _TEXT),
    _own("error_detail", _TEXT),
    _own("attempt", _COUNT),
    *(_timing(name) for name in ("queue", "load", "decode", "score", "total")),
    Column("metadata", _TEXT, lambda one: json.dumps(one.metadata, ensure_ascii=False)),
)
SCHEMA = pa.schema([pa.field(column.name, column.type) for column in COLUMNS])


def pages(engine: Engine, filters: Filters, *, size: int = MAX_PAGE) -> Iterator[Page]:
    """The inspections, newest first, in pages of `size`, the first one even when it is empty.

    Each page is a short transaction of its own, so what is accepted meanwhile is not in them, and what becomes final
    meanwhile is in them once, as it was when its page was read.
    """
    before = None
    while True:
        with engine.begin() as connection:
            items, before = list_page(connection, filters, before=before, limit=size)
        yield items
        if before is None:
            return


def to_csv(pages: Iterable[Page]) -> Iterator[bytes]:
    """RFC 4180 in UTF-8, with a header line. Nothing is an empty cell, lists and metadata are JSON, no cell is altered.

    A cell that begins with `=` is what someone wrote into a field. A spreadsheet may take it for a formula; a program
    must find it as it was written.
    """
    yield _lines([[column.name for column in COLUMNS]])
    for page in pages:
        if page:
            yield _lines([_cell(column.value(one)) for column in COLUMNS] for one in page)


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as text: times as RFC 3339 in UTC, doubles with all digits that it takes to read the same one back."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case dt.datetime():
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        case list():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def to_parquet(pages: Iterable[Page]) -> Iterator[bytes]:
    """Parquet of `SCHEMA`, compressed with zstd. Its footer comes last: what broke off cannot be read as a whole.

    After each page comes what it has made to write, which is nothing while a row group is gathered.
    """
    sink = _Sink()
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for page in pages:
            held.append(_record_batch(page))
            if _is_row_group(held):
                writer.write_table(pa.Table.from_batches(held))
                held.clear()
            yield sink.take()
        if held:
            writer.write_table(pa.Table.from_batches(held))
    yield sink.take()


def _is_row_group(held: Sequence[pa.RecordBatch]) -> bool:
    rows: int = sum(one.num_rows for one in held)
    size: int = sum(one.nbytes for one in held)
    return rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES


def _record_batch(page: Page) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([column.value(one) for one in page], column.type) for column in COLUMNS], schema=SCHEMA
    )


class _Sink(io.RawIOBase):
    """A file that hands on what was written to it."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._written)
        self._written.clear()
        return taken


class Format(StrEnum):
    """A kind of file that inspections can be had as."""

    CSV = "csv"
    PARQUET = "parquet"


MEDIA_TYPES: Mapping[Format, str] = {
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.PARQUET: "application/vnd.apache.parquet",
}
WRITERS: Mapping[Format, Callable[[Iterable[Page]], Iterator[bytes]]] = {
    Format.CSV: to_csv,
    Format.PARQUET: to_parquet,
}
