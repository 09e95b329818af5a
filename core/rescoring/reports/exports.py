"""Columns of a run's export: one flat row for each image, with what was recorded beside the result of the run."""

import json
from operator import attrgetter
from typing import Any

import pyarrow as pa

from core.documents.exports import COUNT, DOUBLE, TEXT, TIME, Column, own
from core.rescoring.reports.results import RunResult


def _review_column(name: str, kind: pa.DataType, attribute: str) -> Column:
    get = attrgetter(attribute)

    def value(result: RunResult) -> Any:
        return None if result.review is None else get(result.review)

    return Column(name, kind, value)


def _metadata(result: RunResult) -> str | None:
    return None if result.metadata is None else json.dumps(result.metadata, ensure_ascii=False)


COLUMNS = (
    own("number", COUNT),
    Column("inspection_id", TEXT, lambda result: result.inspection_id and str(result.inspection_id)),
    own("path", TEXT),
    own("external_id", TEXT),
    own("part_id", TEXT),
    own("lot_id", TEXT),
    own("line_id", TEXT),
    own("station_id", TEXT),
    own("captured_at", TIME),
    Column("image_sha256", TEXT, lambda result: result.image_sha256 and result.image_sha256.hex()),
    own("before_model_version", COUNT),
    own("before_score", DOUBLE),
    own("before_threshold", DOUBLE),
    own("before_verdict", TEXT),
    own("anomaly_score", DOUBLE),
    own("threshold", DOUBLE),
    own("review_threshold", DOUBLE),
    own("verdict", TEXT),
    own("flip", TEXT),
    _review_column("reviewed_verdict", TEXT, "verdict"),
    _review_column("reviewer", TEXT, "reviewer"),
    _review_column("review_reason", TEXT, "reason"),
    _review_column("reviewed_at", TIME, "created_at"),
    own("reasons", pa.list_(TEXT)),
    own("error_code", TEXT),
    own("error_detail", TEXT),
    own("scored_at", TIME),
    Column("metadata", TEXT, _metadata),
)
