"""Exports of a run: one flat row for each image, what was recorded of it beside how it came out now."""

import json
from operator import attrgetter
from typing import Any

import pyarrow as pa

from core.documents.exports import COUNT, DOUBLE, TEXT, TIME, Column, own
from core.rescoring.reports.results import Scored


def _of_review(name: str, kind: pa.DataType, attribute: str) -> Column:
    value = attrgetter(attribute)

    def said(one: Scored) -> Any:
        return None if one.review is None else value(one.review)

    return Column(name, kind, said)


def _metadata(one: Scored) -> str | None:
    return None if one.metadata is None else json.dumps(one.metadata, ensure_ascii=False)


COLUMNS = (
    own("number", COUNT),
    Column("inspection_id", TEXT, lambda one: None if one.inspection_id is None else str(one.inspection_id)),
    own("path", TEXT),
    own("external_id", TEXT),
    own("part_id", TEXT),
    own("lot_id", TEXT),
    own("line_id", TEXT),
    own("station_id", TEXT),
    own("captured_at", TIME),
    Column("image_sha256", TEXT, lambda one: None if one.image_sha256 is None else one.image_sha256.hex()),
    own("before_model_version", COUNT),
    own("before_score", DOUBLE),
    own("before_threshold", DOUBLE),
    own("before_verdict", TEXT),
    own("anomaly_score", DOUBLE),
    own("threshold", DOUBLE),
    own("review_threshold", DOUBLE),
    own("verdict", TEXT),
    own("flip", TEXT),
    _of_review("reviewed_verdict", TEXT, "verdict"),
    _of_review("reviewer", TEXT, "reviewer"),
    _of_review("review_reason", TEXT, "reason"),
    _of_review("reviewed_at", TIME, "created_at"),
    own("reasons", pa.list_(TEXT)),
    own("error_code", TEXT),
    own("error_detail", TEXT),
    own("scored_at", TIME),
    Column("metadata", TEXT, _metadata),
)
