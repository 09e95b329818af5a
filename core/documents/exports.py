"""Exports: a flat table as CSV or Parquet, for example one row per inspection, written while the rows are read.

Memory is limited to a page or a row group, and no transaction is open while data is sent.
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
"""Inspections, or other objects that the columns read."""

# A row group is written when it reaches either limit; no more is held in memory.
ROW_GROUP_ROWS = 16 * MAX_PAGE
ROW_GROUP_BYTES = 16 * 1024 * 1024

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
DOUBLE = pa.float64()
COUNT = pa.int64()


@dataclass(frozen=True)
class Column:
    """A column: its name, its Parquet type, and the function that reads its value from an object."""

    name: str
    type: pa.DataType
    value: Callable[[Any], Any]


def attribute_column(name: str, kind: pa.DataType) -> Column:
    """A column that reads the attribute of the same name."""
    return Column(name, kind, attrgetter(name))


def _review_column(name: str, kind: pa.DataType, value: Callable[[Review], Any]) -> Column:
    """A column of the newest review with the verdict that the reviews decided."""
    return Column(name, kind, lambda inspection: value(review) if (review := inspection.decisive_review) else None)


def _timing_column(name: str) -> Column:
    return Column(f"{name}_ms", DOUBLE, lambda inspection: inspection.timings_ms.get(name))


def _model_sha256(inspection: Inspection) -> str | None:
    return None if inspection.model_sha256 is None else inspection.model_sha256.hex()


def _batch_id(inspection: Inspection) -> str | None:
    return None if inspection.batch_id is None else str(inspection.batch_id)


COLUMNS = (
    Column("id", TEXT, lambda inspection: str(inspection.id)),
    attribute_column("status", TEXT),
    attribute_column("recipe", TEXT),
    attribute_column("priority", TEXT),
    Column("batch_id", TEXT, _batch_id),
    attribute_column("external_id", TEXT),
    attribute_column("part_id", TEXT),
    attribute_column("view", TEXT),
    attribute_column("lot_id", TEXT),
    attribute_column("line_id", TEXT),
    attribute_column("station_id", TEXT),
    attribute_column("captured_at", TIME),
    attribute_column("deadline_at", TIME),
    attribute_column("created_at", TIME),
    attribute_column("started_at", TIME),
    attribute_column("finished_at", TIME),
    attribute_column("anomaly_score", DOUBLE),
    attribute_column("threshold", DOUBLE),
    attribute_column("review_threshold", DOUBLE),
    attribute_column("is_anomaly", pa.bool_()),
    attribute_column("verdict", TEXT),
    attribute_column("effective_verdict", TEXT),
    _review_column("reviewer", TEXT, attrgetter("reviewer")),
    _review_column("review_reason", TEXT, attrgetter("reason")),
    _review_column("reviewed_at", TIME, attrgetter("created_at")),
    attribute_column("model_version", COUNT),
    Column("model_sha256", TEXT, _model_sha256),
    Column("image_sha256", TEXT, lambda inspection: inspection.image_sha256.hex()),
    attribute_column("image_width", COUNT),
    attribute_column("image_height", COUNT),
    attribute_column("image_bytes", COUNT),
    attribute_column("image_media_type", TEXT),
    attribute_column("reasons", pa.list_(TEXT)),
    attribute_column("error_code", TEXT),
    attribute_column("error_detail", TEXT),
    attribute_column("attempt", COUNT),
    *(_timing_column(name) for name in ("queue", "load", "decode", "score", "total")),
    Column("metadata", TEXT, lambda inspection: json.dumps(inspection.metadata, ensure_ascii=False)),
)


def schema(columns: Sequence[Column]) -> pa.Schema:
    """The Parquet schema of these columns."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


def pages(engine: Engine, filters: Filters, *, size: int = MAX_PAGE) -> Iterator[Page]:
    """The inspections, newest first, in pages of `size`. The first page is yielded even if it is empty.

    Each page is read in a separate short transaction. Inspections accepted during the export are not included;
    inspections that finish during it are included once, in the state when their page was read.
    """
    before = None
    while True:
        with engine.begin() as connection:
            items, before = list_page(connection, filters, before=before, limit=size)
        yield items
        if before is None:
            return


def to_csv(pages: Iterable[Page], columns: Sequence[Column] = COLUMNS) -> Iterator[bytes]:
    """RFC 4180 in UTF-8, with a header line. None becomes an empty cell; lists and metadata become JSON.

    Cells are never escaped against formulas: programs must read the original value, even if a spreadsheet takes a cell
    that starts with `=` for a formula.
    """
    yield _lines([[column.name for column in columns]])
    for page in pages:
        if page:
            yield _lines([_cell(column.value(row)) for column in columns] for row in page)


def _lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value as text: times as RFC 3339 in UTC, doubles with enough digits to read the same value back."""
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
    """Parquet with `schema(columns)`, compressed with zstd.

    The footer is written last, so an incomplete file cannot be read. One chunk of bytes is yielded per page; it is
    empty while a row group is being collected.
    """
    sink = _Sink()
    pending: list[pa.RecordBatch] = []
    with pq.ParquetWriter(sink, schema(columns), compression="zstd") as writer:
        for page in pages:
            pending.append(_record_batch(page, columns))
            if _is_row_group(pending):
                writer.write_table(pa.Table.from_batches(pending))
                pending.clear()
            yield sink.take()
        if pending:
            writer.write_table(pa.Table.from_batches(pending))
    yield sink.take()


def _is_row_group(pending: Sequence[pa.RecordBatch]) -> bool:
    rows: int = sum(batch.num_rows for batch in pending)
    size: int = sum(batch.nbytes for batch in pending)
    return rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES


def _record_batch(page: Page, columns: Sequence[Column]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([column.value(row) for row in page], column.type) for column in columns], schema=schema(columns)
    )


class _Sink(io.RawIOBase):
    """A file-like buffer whose content is taken in chunks."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return and clear the bytes written since the last call."""
        taken = b"".join(self._written)
        self._written.clear()
        return taken


class Format(StrEnum):
    """The file format of an export."""

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
