"""Inspections as JSON results of OPC UA for Machine Vision.

The shape is `ResultDataType` of OPC 40100-1 (v1.00, clauses 12.4 to 12.19) with the `ResultEvaluation` of OPC 40001-101
(v1.01, clause 10.3). As in the JSON encoding of OPC 10000-6, optional fields without a value are omitted, a Duration is
in milliseconds, a ByteString is Base64, an Int32 (`ResultState`) is a number. `ResultEvaluation` is written as the name
of its value, to be readable.
"""

import base64
import datetime as dt
from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from core.documents import documents
from core.inspection import inspections
from core.models.verdicts import Verdict


class ResultState(IntEnum):
    """0 Undefined, 1 Completed, 2 Processing, 3 Aborted, 4 Failed (OPC 40100-1, ResultStateDataType)."""

    UNDEFINED = 0
    COMPLETED = 1
    PROCESSING = 2
    ABORTED = 3
    FAILED = 4


class ResultEvaluation(StrEnum):
    """The names of 0 Undefined, 1 OK, 2 NotOK, 3 NotDecidable (OPC 40001-101, ResultEvaluationEnum)."""

    UNDEFINED = "Undefined"
    OK = "OK"
    NOT_OK = "NotOK"
    NOT_DECIDABLE = "NotDecidable"


STATES: Mapping[str, ResultState] = {
    "queued": ResultState.PROCESSING,
    "running": ResultState.PROCESSING,
    "completed": ResultState.COMPLETED,
    "cancelled": ResultState.ABORTED,
    "failed": ResultState.FAILED,
}
EVALUATIONS: Mapping[Verdict | None, ResultEvaluation] = {
    "ok": ResultEvaluation.OK,
    "ng": ResultEvaluation.NOT_OK,
    "review": ResultEvaluation.NOT_DECIDABLE,
    None: ResultEvaluation.UNDEFINED,
}


def _missing(value: Any) -> bool:
    return value is None


class _Structure(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, validate_by_name=True, serialize_by_alias=True)


class Identifier(_Structure):
    """ResultIdDataType, MeasIdDataType, PartIdDataType and JobIdDataType."""

    id: str


class BinaryIdentifier(Identifier):
    """RecipeIdExternalDataType, RecipeIdInternalDataType and ConfigurationIdDataType."""

    version: str | None = Field(None, exclude_if=_missing)
    hash: str | None = Field(None, exclude_if=_missing, description="Base64")
    hash_algorithm: str | None = Field(None, exclude_if=_missing)


class ProcessingTimes(_Structure):
    """ProcessingTimesDataType. Durations are milliseconds."""

    start_time: dt.datetime
    end_time: dt.datetime
    acquisition_duration: float | None = Field(None, exclude_if=_missing, description="fetching and decoding")
    processing_duration: float | None = Field(None, exclude_if=_missing, description="scoring")


class OpcUaResult(_Structure):
    """ResultDataType of OPC 40100-1 with the ResultEvaluation of OPC 40001-101, which follows the effective verdict."""

    result_id: Identifier
    has_transferable_data_on_file: bool
    is_partial: bool
    is_simulated: bool
    result_state: ResultState
    meas_id: Identifier | None = Field(None, exclude_if=_missing, description="`external_id`")
    part_id: Identifier | None = Field(None, exclude_if=_missing)
    external_recipe_id: BinaryIdentifier = Field(description="the recipe's name")
    internal_recipe_id: BinaryIdentifier = Field(description="the recipe, with the model version that scored the image")
    product_id: Identifier | None = Field(None, exclude_if=_missing, description="always omitted")
    external_configuration_id: BinaryIdentifier | None = Field(None, exclude_if=_missing, description="always omitted")
    internal_configuration_id: BinaryIdentifier = Field(description="always `linewatch`")
    job_id: Identifier = Field(description="the batch; the inspection itself if it has no batch")
    creation_time: dt.datetime = Field(description="`finished_at`; `created_at` while it is in flight")
    processing_times: ProcessingTimes | None = Field(None, exclude_if=_missing)
    result_content: list[documents.Inspection] = Field(description="one element, the Inspection")
    result_evaluation: ResultEvaluation

    @classmethod
    def of(cls, inspection: inspections.Inspection) -> Self:
        return cls(
            result_id=Identifier(id=str(inspection.id)),
            has_transferable_data_on_file=False,
            is_partial=False,
            is_simulated=False,
            result_state=STATES[inspection.status],
            meas_id=_identifier(inspection.external_id),
            part_id=_identifier(inspection.part_id),
            external_recipe_id=BinaryIdentifier(id=inspection.recipe),
            internal_recipe_id=_internal_recipe(inspection),
            internal_configuration_id=BinaryIdentifier(id="linewatch"),
            job_id=Identifier(id=str(inspection.batch_id or inspection.id)),
            creation_time=inspection.finished_at or inspection.created_at,
            processing_times=_processing_times(inspection),
            result_content=[documents.Inspection.of(inspection)],
            result_evaluation=EVALUATIONS[inspection.effective_verdict],
        )


def _identifier(value: str | None) -> Identifier | None:
    return None if value is None else Identifier(id=value)


def _internal_recipe(inspection: inspections.Inspection) -> BinaryIdentifier:
    if inspection.model_version is None or inspection.model_sha256 is None:
        return BinaryIdentifier(id=inspection.recipe)
    return BinaryIdentifier(
        id=inspection.recipe,
        version=str(inspection.model_version),
        hash=base64.b64encode(inspection.model_sha256).decode(),
        hash_algorithm="SHA-256",
    )


def _processing_times(inspection: inspections.Inspection) -> ProcessingTimes | None:
    """The times of an inspection that was started and is final; None otherwise."""
    if inspection.started_at is None or inspection.finished_at is None:
        return None
    timings = inspection.timings_ms
    return ProcessingTimes(
        start_time=inspection.started_at,
        end_time=inspection.finished_at,
        acquisition_duration=timings["load"] + timings["decode"] if {"load", "decode"} <= timings.keys() else None,
        processing_duration=timings.get("score"),
    )
