"""Exports: one flat table, one row for each inspection or other noun, as CSV or Parquet, written while it is read.

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

from core.inspection.inspections import MAX_PAGE, Filters, Inspection, Review, list_page

Page = Sequence[Any]
"""Inspections, or what else the columns are of."""

# A row group is written when it has reached either; it is the most that is held in memory.
ROW_GROUP_ROWS = 16 * MAX_PAGE
ROW_GROUP_BYTES = 16 * 1024 * 1024

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
DOUBLE = pa.float64()
COUNT = pa.int64()


@dataclass(frozen=True)
class Column:
    """One column: its name in both formats, its type in Parquet, and where its value comes from."""

    name: str
    type: pa.DataType
    value: Callable[[Any], Any]


def own(name: str, kind: pa.DataType) -> Column:
    """A column of the attribute of its name."""
    return Column(name, kind, attrgetter(name))


def _of_review(name: str, kind: pa.DataType, value: Callable[[Review], Any]) -> Column:
    """What the newest review says, which is the one that counts."""
    return Column(name, kind, lambda one: value(one.reviews[-1]) if one.reviews else None)


def _timing(name: str) -> Column:
    return Column(f"{name}_ms", DOUBLE, lambda one: one.timings_ms.get(name))


def _model_sha256(one: Inspection) -> str | None:
    return None if one.model_sha256 is None else one.model_sha256.hex()


COLUMNS = (
    Column("id", TEXT, lambda one: str(one.id)),
    own("status", TEXT),
    own("recipe", TEXT),
    own("priority", TEXT),
    Column("batch_id", TEXT, lambda one: None if one.batch_id is None else str(one.batch_id)),
    own("external_id", TEXT),
    own("part_id", TEXT),
    own("view", TEXT),
    own("lot_id", TEXT),
    own("line_id", TEXT),
    own("station_id", TEXT),
    own("captured_at", TIME),
    own("deadline_at", TIME),
    own("created_at", TIME),
    own("started_at", TIME),
    own("finished_at", TIME),
    own("anomaly_score", DOUBLE),
    own("threshold", DOUBLE),
    own("review_threshold", DOUBLE),
    own("is_anomaly", pa.bool_()),
    own("verdict", TEXT),
    own("effective_verdict", TEXT),
    _of_review("reviewer", TEXT, attrgetter("reviewer")),
    _of_review("review_reason", TEXT, attrgetter("reason")),
    _of_review("reviewed_at", TIME, attrgetter("created_at")),
    own("model_version", COUNT),
    Column("model_sha256", TEXT, _model_sha256),
    Column("image_sha256", TEXT, lambda one: one.image_sha256.hex()),
    own("image_width", COUNT),
    own("image_height", COUNT),
    own("image_bytes", COUNT),
    own("image_media_type", TEXT),
    own("reasons", pa.list_(TEXT)),
    own("error_code", TEXT),
    own("error_detail", TEXT),
    own("attempt", COUNT),
    *(_timing(name) for name in ("queue", "load", "decode", "score", "total")),
    Column("metadata", TEXT, lambda one: json.dumps(one.metadata, ensure_ascii=False)),
)


def schema(columns: Sequence[Column]) -> pa.Schema:
    """That of a Parquet file of these columns."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


SCHEMA = schema(COLUMNS)


def pages(engine: Engine, filters: Filters, *, size: int = MAX_PAGE) -> Iterator[Page]:
    """The inspections, newest first, in pages of `size`, the first one even when it is empty.

    Each page is a short transaction of its own, so what is accepted during the export is not included.
    What becomes final during it is included once, as it was when its page was read.
    """
    before = None
    while True:
        with engine.begin() as connection:
            items, before = list_page(connection, filters, before=before, limit=size)
        yield items
        if before is None:
            return


def to_csv(pages: Iterable[Page], columns: Sequence[Column] = COLUMNS) -> Iterator[bytes]:
    """RFC 4180 in UTF-8, with a header line. Nothing is an empty cell, lists and metadata are JSON, no cell is altered.

    A cell that begins with `=` is what someone wrote into a field. A spreadsheet may take it for a formula; a program
    must find it as it was written.
    """
    yield _lines([[column.name for column in columns]])
    for page in pages:
        if page:
            yield _lines([_cell(column.value(one)) for column in columns] for one in page)


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


def to_parquet(pages: Iterable[Page], columns: Sequence[Column] = COLUMNS) -> Iterator[bytes]:
    """Parquet of `schema(columns)`, compressed with zstd.

    Its footer comes last: what broke off cannot be read as a whole.

    After each page comes what it has made to write, which is nothing while a row group is gathered.
    """
    sink = _Sink()
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(sink, schema(columns), compression="zstd") as writer:
        for page in pages:
            held.append(_record_batch(page, columns))
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


def _record_batch(page: Page, columns: Sequence[Column]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([column.value(one) for one in page], column.type) for column in columns], schema=schema(columns)
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
    """A kind of file that a table can be had as."""

    CSV = "csv"
    PARQUET = "parquet"


MEDIA_TYPES: Mapping[Format, str] = {
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.PARQUET: "application/vnd.apache.parquet",
}
WRITERS: Mapping[Format, Callable[[Iterable[Page], Sequence[Column]], Iterator[bytes]]] = {
    Format.CSV: to_csv,
    Format.PARQUET: to_parquet,
}
