"""Columns of a run's export: one flat row for each image, with what was recorded beside the result of the run."""

import json
from operator import attrgetter
from typing import Any

import pyarrow as pa

from core.documents.exports import COUNT, DOUBLE, TEXT, TIME, Column, attribute_column
from core.rescoring.reports.results import RunResult


def _review_column(name: str, kind: pa.DataType, attribute: str) -> Column:
    get = attrgetter(attribute)

    def value(result: RunResult) -> Any:
        return None if result.review is None else get(result.review)

    return Column(name, kind, value)


def _metadata(result: RunResult) -> str | None:
    return None if result.metadata is None else json.dumps(result.metadata, ensure_ascii=False)


COLUMNS = (
    attribute_column("number", COUNT),
    Column("inspection_id", TEXT, lambda result: result.inspection_id and str(result.inspection_id)),
    attribute_column("path", TEXT),
    attribute_column("external_id", TEXT),
    attribute_column("part_id", TEXT),
    attribute_column("lot_id", TEXT),
    attribute_column("line_id", TEXT),
    attribute_column("station_id", TEXT),
    attribute_column("captured_at", TIME),
    Column("image_sha256", TEXT, lambda result: result.image_sha256 and result.image_sha256.hex()),
    attribute_column("before_model_version", COUNT),
    attribute_column("before_score", DOUBLE),
    attribute_column("before_threshold", DOUBLE),
    attribute_column("before_verdict", TEXT),
    attribute_column("anomaly_score", DOUBLE),
    attribute_column("threshold", DOUBLE),
    attribute_column("review_threshold", DOUBLE),
    attribute_column("verdict", TEXT),
    attribute_column("flip", TEXT),
    _review_column("reviewed_verdict", TEXT, "verdict"),
    _review_column("reviewer", TEXT, "reviewer"),
    _review_column("review_reason", TEXT, "reason"),
    _review_column("reviewed_at", TIME, "created_at"),
    attribute_column("reasons", pa.list_(TEXT)),
    attribute_column("error_code", TEXT),
    attribute_column("error_detail", TEXT),
    attribute_column("scored_at", TIME),
    Column("metadata", TEXT, _metadata),
)
