"""Inspections as results of OPC UA for Machine Vision."""

import base64
import datetime as dt
import json
from dataclasses import replace
from typing import Any, get_args
from uuid import UUID

import pytest

from core.documents import opcua
from core.documents.opcua import OpcUaResult
from core.inspection.inspections import FINAL, Inspection, Review
from core.models.verdicts import Verdict

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
COMPLETED = Inspection(
    id=UUID(int=1), status="completed", recipe="ring", priority="live", batch_id=UUID(int=2), external_id="cam3.png",
    part_id="SN-1", view="top", lot_id="L", line_id="2", station_id="7", metadata={"shift": "early"},
    anomaly_score=0.25, threshold=0.5, review_threshold=None, verdict="ok", model_version_id=9, model_version=3,
    model_sha256=b"\2" * 32, image_day=NOW.date(), image_sha256=b"\1" * 32, image_media_type="image/png",
    image_width=4, image_height=3, image_bytes=10, reasons=[], error_code=None, error_detail=None, attempt=1,
    captured_at=None, deadline_at=None, created_at=NOW, started_at=NOW + dt.timedelta(seconds=1),
    finished_at=NOW + dt.timedelta(seconds=2),
    timings_ms={"queue": 1000.0, "load": 0.5, "decode": 6.0, "score": 2.25, "total": 2000.0},
)  # fmt: skip


def result_of(inspection: Inspection) -> dict[str, Any]:
    """The JSON of the response."""
    result: dict[str, Any] = json.loads(OpcUaResult.of(inspection).model_dump_json())
    return result


def test_every_field_of_a_completed_inspection() -> None:
    result = result_of(COMPLETED)
    [content] = result.pop("ResultContent")
    assert (content["id"], content["lot_id"], content["anomaly_score"]) == (str(COMPLETED.id), "L", 0.25)
    assert result == {
        "ResultId": {"Id": str(UUID(int=1))},
        "HasTransferableDataOnFile": False,
        "IsPartial": False,
        "IsSimulated": False,
        "ResultState": 1,
        "MeasId": {"Id": "cam3.png"},
        "PartId": {"Id": "SN-1"},
        "ExternalRecipeId": {"Id": "ring"},
        "InternalRecipeId": {
            "Id": "ring",
            "Version": "3",
            "Hash": base64.b64encode(b"\2" * 32).decode(),
            "HashAlgorithm": "SHA-256",
        },
        "InternalConfigurationId": {"Id": "linewatch"},
        "JobId": {"Id": str(UUID(int=2))},
        "CreationTime": "2026-01-02T03:04:07Z",
        "ProcessingTimes": {
            "StartTime": "2026-01-02T03:04:06Z",
            "EndTime": "2026-01-02T03:04:07Z",
            "AcquisitionDuration": 6.5,
            "ProcessingDuration": 2.25,
        },
        "ResultEvaluation": "OK",
    }


def test_fields_without_a_value_are_omitted() -> None:
    result = result_of(
        replace(
            COMPLETED,
            status="queued",
            batch_id=None,
            external_id=None,
            part_id=None,
            anomaly_score=None,
            threshold=None,
            verdict=None,
            model_version_id=None,
            model_version=None,
            model_sha256=None,
            started_at=None,
            finished_at=None,
            timings_ms={},
        )
    )
    assert not {"MeasId", "PartId", "ProductId", "ExternalConfigurationId", "ProcessingTimes"} & result.keys()
    assert result["InternalRecipeId"] == {"Id": "ring"}
    assert result["JobId"] == result["ResultId"]
    assert (result["CreationTime"], result["ResultState"]) == ("2026-01-02T03:04:05Z", 2)
    assert result["ResultEvaluation"] == "Undefined"


def test_a_cancelled_inspection_has_times_without_durations() -> None:
    result = result_of(replace(COMPLETED, status="cancelled", verdict=None, anomaly_score=None, timings_ms={}))
    assert result["ProcessingTimes"].keys() == {"StartTime", "EndTime"}
    assert (result["ResultState"], result["ResultEvaluation"]) == (3, "Undefined")


@pytest.mark.parametrize(("verdict", "evaluation"), [("ok", "OK"), ("ng", "NotOK"), ("review", "NotDecidable")])
def test_the_evaluation_is_the_effective_verdict(verdict: Verdict, evaluation: str) -> None:
    assert result_of(replace(COMPLETED, verdict=verdict))["ResultEvaluation"] == evaluation
    overruled = Review(UUID(int=3), COMPLETED.id, "ok", "Jo", "dust", "local", NOW)
    assert result_of(replace(COMPLETED, verdict=verdict, reviews=[overruled]))["ResultEvaluation"] == "OK"


def test_a_failed_inspection_has_an_undefined_evaluation() -> None:
    failed = replace(COMPLETED, status="failed", verdict=None, anomaly_score=None, error_code="image_undecodable")
    result = result_of(failed)
    assert (result["ResultState"], result["ResultEvaluation"]) == (4, "Undefined")
    assert result["ResultContent"][0]["error"]["code"] == "image_undecodable"


def test_every_status_and_verdict_is_mapped() -> None:
    assert opcua.STATES.keys() == {"queued", "running", *FINAL}
    assert opcua.EVALUATIONS.keys() == {None, *get_args(Verdict)}
