"""What a webhook's body says: the event, and the document of what it is about, as it stands when it is sent."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, select

from core import batches, inspections, model_versions, tables, thresholds
from core.documents import Batch, Inspection, ModelVersion, RescoreRun
from core.events import EventType
from core.rescoring import runs
from core.sending import Claim, Message

_OF_INSPECTIONS = (EventType.INSPECTION_COMPLETED, EventType.INSPECTION_FAILED, EventType.INSPECTION_REVIEWED)
_OF_RUNS = (EventType.RESCORE_RUN_PROGRESS, EventType.RESCORE_RUN_COMPLETED, EventType.RESCORE_RUN_FAILED)
_AT_ONCE = 1000

Document = dict[str, Any]


def documents(connection: Connection, claims: Sequence[Claim]) -> dict[UUID, Document]:
    """By delivery, what its event is about; a delivery whose subject is gone is not among them."""

    def subjects(*events: EventType) -> set[str]:
        return {one.subject_id for one in claims if one.event in events}

    found: dict[str, dict[str, Document]] = {
        **dict.fromkeys(_OF_INSPECTIONS, _inspections(connection, subjects(*_OF_INSPECTIONS))),
        EventType.BATCH_COMPLETED: _batches(connection, subjects(EventType.BATCH_COMPLETED)),
        **dict.fromkeys(_OF_RUNS, _runs(connection, subjects(*_OF_RUNS))),
        EventType.MODEL_ACTIVATED: _model_versions(connection, subjects(EventType.MODEL_ACTIVATED)),
        EventType.ENDPOINT_TEST: {one: _test(one) for one in subjects(EventType.ENDPOINT_TEST)},
    }
    return {
        one.id: document for one in claims if (document := found.get(one.event, {}).get(one.subject_id)) is not None
    }


def _inspections(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    wanted = [UUID(one) for one in subjects]
    return {
        str(found.id): Inspection.of(found).model_dump(mode="json")
        for start in range(0, len(wanted), _AT_ONCE)
        for found in inspections.by_ids(connection, wanted[start : start + _AT_ONCE]).values()
    }


def _batches(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    if not subjects:
        return {}
    found = batches.by_ids(connection, map(UUID, subjects)).values()
    return {str(one.id): Batch.of(one).model_dump(mode="json") for one in found}


def _runs(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    if not subjects:
        return {}
    found = runs.by_ids(connection, map(UUID, subjects)).values()
    return {str(one.id): RescoreRun.of(one).model_dump(mode="json") for one in found}


def _model_versions(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    found = {one: _model_version(connection, int(one)) for one in subjects}  # they are few
    return {one: document for one, document in found.items() if document is not None}


def _model_version(connection: Connection, version_id: int) -> Document | None:
    versions = tables.model_versions
    if connection.execute(select(versions.c.id).where(versions.c.id == version_id)).one_or_none() is None:
        return None
    version = model_versions.by_id(connection, version_id)
    in_force = thresholds.current(connection, version_id)
    return ModelVersion.of(version, in_force).model_dump(mode="json", exclude={"manifest"})  # it may be megabytes


def _test(endpoint_id: str) -> Document:
    return {"endpoint_id": endpoint_id, "message": "This is a test: messages of Linewatch arrive here."}


def body(message: Message, told: dict[UUID, Document]) -> bytes | None:
    """The JSON of a message, without the events whose subjects are gone; None if none is left."""
    events = [
        {"id": str(one.id), "type": one.event, "timestamp": _moment(one.occurred_at), "data": told[one.id]}
        for one in message.claims
        if one.id in told
    ]
    if not events:
        return None
    if message.grouped:
        newest = max(one.occurred_at for one in message.claims)
        whole: Document = {"type": "group", "timestamp": _moment(newest), "data": events}
    else:
        whole = {name: events[0][name] for name in ("type", "timestamp", "data")}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def _moment(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
