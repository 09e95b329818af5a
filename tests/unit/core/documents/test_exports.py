"""Export files: every value is read back as it was written, even with special characters."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.documents import exports
from core.documents.exports import Page
from core.inspection.inspections import Inspection, Review

# PostgreSQL can store any character but U+0000 and lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
special = texts | st.sampled_from(
    ['"', '""', ",", "\r\n", "\n", "\r", "=1+1", "@SUM(A1)", "\t-2", " ", ";", "ä\u2028", "'"]
)
labels = st.none() | special.filter(bool)
doubles = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2199, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001
reviews = st.builds(
    Review, id=st.uuids(), inspection_id=st.uuids(), verdict=st.sampled_from(["ok", "ng"]),
    reviewer=special.filter(bool), reason=special.filter(bool), actor=st.just("local"), created_at=moments,
)  # fmt: skip
inspections = st.builds(
    Inspection,
    status=st.sampled_from(["queued", "running", "completed", "failed", "cancelled"]),
    recipe=st.just("ring"),
    priority=st.just("live"),
    verdict=st.none() | st.sampled_from(["ok", "ng", "review"]),
    model_sha256=st.none() | st.binary(min_size=32, max_size=32),
    image_sha256=st.binary(min_size=32, max_size=32),
    image_media_type=st.just("image/png"),
    reasons=st.lists(special, max_size=3),
    metadata=st.dictionaries(special, special | doubles | st.none(), max_size=3),
    timings_ms=st.dictionaries(st.sampled_from(["queue", "score", "total"]), doubles),
    reviews=st.lists(reviews, max_size=2),
    captured_at=st.none() | moments, deadline_at=st.none() | moments, created_at=moments,
    started_at=st.none() | moments, finished_at=st.none() | moments,
    **dict.fromkeys(["external_id", "part_id", "view", "lot_id", "line_id", "station_id"], labels),
    **dict.fromkeys(["error_code", "error_detail"], labels),
    **dict.fromkeys(["anomaly_score", "threshold", "review_threshold"], st.none() | doubles),
    **dict.fromkeys(["model_version_id", "model_version"], st.none() | st.integers(1, 2**31 - 1)),
    **dict.fromkeys(["image_width", "image_height", "image_bytes", "attempt"], st.integers(0, 2**31 - 1)),
)  # fmt: skip


def values(inspection: Inspection) -> dict[str, object]:
    """The expected values of the row of an inspection."""
    newest = inspection.reviews[-1] if inspection.reviews else None
    return {
        "id": str(inspection.id), "batch_id": inspection.batch_id and str(inspection.batch_id),
        "image_sha256": inspection.image_sha256.hex(),
        "model_sha256": inspection.model_sha256 and inspection.model_sha256.hex(),
        "metadata": inspection.metadata, "reviewer": newest and newest.reviewer,
        "review_reason": newest and newest.reason, "reviewed_at": newest and newest.created_at,
        **{f"{name}_ms": inspection.timings_ms.get(name) for name in ("queue", "load", "decode", "score", "total")},
        **{
            name: getattr(inspection, name)
            for name in (
                "status", "recipe", "priority", "external_id", "part_id", "view", "lot_id", "line_id", "station_id",
                "captured_at", "deadline_at", "created_at", "started_at", "finished_at", "anomaly_score", "threshold",
                "review_threshold", "is_anomaly", "verdict", "effective_verdict", "model_version", "image_width",
                "image_height", "image_bytes", "image_media_type", "reasons", "error_code", "error_detail", "attempt",
            )
        },
    }  # fmt: skip


def parsed(name: str, cell: str, expected: object) -> object:
    """Convert a cell to the type of its column; `expected` is used only for its type."""
    if name in ("metadata", "reasons"):
        return json.loads(cell)
    if cell == "":
        return None
    match expected:
        case bool():
            return {"true": True, "false": False}[cell]
        case int() | float():
            return type(expected)(cell)
        case dt.datetime():
            assert cell.endswith("Z")
            return dt.datetime.fromisoformat(cell)
    return cell


@given(st.lists(inspections, max_size=4), st.integers(1, 3))
def test_a_csv_file_contains_the_values_of_the_inspections(written: list[Inspection], size: int) -> None:
    pages = [written[start : start + size] for start in range(0, len(written), size)] or [[]]
    text = b"".join(exports.to_csv(pages)).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert text.endswith("\r\n")
    assert len(rows) == len(written)
    for inspection, row in zip(written, rows, strict=True):
        expected = values(inspection)
        assert {name: parsed(name, cell, expected[name]) for name, cell in zip(header, row, strict=True)} == expected


@given(st.lists(inspections, max_size=4), st.integers(1, 3))
def test_a_parquet_file_contains_the_values_of_the_inspections(written: list[Inspection], size: int) -> None:
    pages = [written[start : start + size] for start in range(0, len(written), size)] or [[]]
    table = pq.read_table(io.BytesIO(b"".join(exports.to_parquet(pages))))
    assert table.schema.equals(exports.schema(exports.COLUMNS))
    rows = [row | {"metadata": json.loads(row["metadata"])} for row in table.to_pylist()]
    assert rows == [values(inspection) for inspection in written]


def make_inspection(number: int, metadata_bytes: int) -> Inspection:
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    return Inspection(
        id=UUID(int=number), status="completed", recipe="ring", priority="live", batch_id=None, external_id=None,
        part_id=None, view=None, lot_id=None, line_id=None, station_id=None, metadata={"note": "x" * metadata_bytes},
        anomaly_score=0.25, threshold=0.5, review_threshold=None, verdict="ok", model_version_id=1, model_version=1,
        model_sha256=b"\2" * 32, image_day=now.date(), image_sha256=b"\1" * 32, image_media_type="image/png",
        image_width=4, image_height=3, image_bytes=10, reasons=[], error_code=None, error_detail=None, attempt=1,
        captured_at=None, deadline_at=None, created_at=now, started_at=now, finished_at=now, timings_ms={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "metadata_bytes", "rows_in_group"), [(33, 10, 16_000), (4, 9 * 1024, 2_000)], ids=["rows", "bytes"]
)
def test_a_row_group_is_closed_at_its_row_or_byte_limit(number: int, metadata_bytes: int, rows_in_group: int) -> None:
    page = [make_inspection(row, metadata_bytes) for row in range(1000)]
    file = pq.ParquetFile(io.BytesIO(b"".join(exports.to_parquet([page] * number))))
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    assert {group.num_rows for group in groups[:-1]} == {rows_in_group}
    assert sum(group.num_rows for group in groups) == number * 1000
    assert groups[0].column(0).compression == "ZSTD"


@pytest.mark.parametrize("kind", exports.Format)
def test_a_parquet_file_stays_unreadable_if_reading_fails(kind: exports.Format) -> None:
    def pages() -> Iterator[Page]:
        yield [make_inspection(1, 10)]
        raise ConnectionError("gone")

    written = []
    with pytest.raises(ConnectionError, match="gone"):  # noqa: PT012 - the chunks before the exception are needed
        for chunk in exports.WRITERS[kind](pages(), exports.COLUMNS):
            written.append(chunk)  # noqa: PERF402 - list() would lose the chunks before the exception
    if kind == exports.Format.PARQUET:
        with pytest.raises(ValueError, match="Parquet"):
            pq.read_table(io.BytesIO(b"".join(written)))
