"""What a webhook's body says: the event, and the document of what it is about, as it stands when it is sent."""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select

from core import tables
from core.delivery.sending import Claim, Message
from core.documents.documents import Batch, Inspection, ModelVersion
from core.feed.events import EventType
from core.inspection import inspections
from core.models import model_versions, thresholds
from core.queue import batches

_OF_INSPECTIONS = (EventType.INSPECTION_COMPLETED, EventType.INSPECTION_FAILED, EventType.INSPECTION_REVIEWED)
_AT_ONCE = 1000

Document = dict[str, Any]


Loader = Callable[[Connection, set[str]], dict[str, Document]]
"""Reads the documents of the subjects with these ids; a subject that is gone is not among them."""


def documents(connection: Connection, claims: Sequence[Claim], loaders: Mapping[str, Loader]) -> dict[UUID, Document]:
    """By delivery, the document of what its event is about; a delivery whose subject is gone is not among them.

    Args:
        loaders: what reads the subjects of each type of event; `LOADERS` holds those of this module.
    """
    subjects: dict[Loader, set[str]] = {}
    for claim in claims:
        if claim.event in loaders:
            subjects.setdefault(loaders[claim.event], set()).add(claim.subject_id)
    found = {loader: loader(connection, ids) for loader, ids in subjects.items()}
    return {
        claim.id: document
        for claim in claims
        if claim.event in loaders and (document := found[loaders[claim.event]].get(claim.subject_id)) is not None
    }


def _inspections(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    wanted = [UUID(one) for one in subjects]
    return {
        str(found.id): Inspection.of(found).model_dump(mode="json")
        for start in range(0, len(wanted), _AT_ONCE)
        for found in inspections.by_ids(connection, wanted[start : start + _AT_ONCE]).values()
    }


def _batches(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    found = batches.by_ids(connection, map(UUID, subjects)).values()
    return {str(one.id): Batch.of(one).model_dump(mode="json") for one in found}


def _model_versions(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    found = {one: _model_version(connection, int(one)) for one in subjects}  # they are few
    return {one: document for one, document in found.items() if document is not None}


def _model_version(connection: Connection, version_id: int) -> Document | None:
    versions = tables.model_versions
    if connection.execute(select(versions.c.id).where(versions.c.id == version_id)).one_or_none() is None:
        return None
    version = model_versions.by_id(connection, version_id)
    in_force = thresholds.in_force(connection, version_id)
    return ModelVersion.of(version, in_force).model_dump(mode="json", exclude={"manifest"})  # it may be megabytes


def _tests(_: Connection, subjects: set[str]) -> dict[str, Document]:
    return {
        one: {"endpoint_id": one, "message": "This is a test: messages of Linewatch arrive here."} for one in subjects
    }


LOADERS: Final[Mapping[str, Loader]] = {
    **dict.fromkeys(_OF_INSPECTIONS, _inspections),
    EventType.BATCH_COMPLETED: _batches,
    EventType.MODEL_ACTIVATED: _model_versions,
    EventType.ENDPOINT_TEST: _tests,
}
"""Of the events of inspections, batches, model versions and endpoints; other rooms bring their own."""


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
