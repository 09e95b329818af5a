"""Webhook bodies: events with the current documents of their subjects."""

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
_IDS_PER_QUERY = 1000

Document = dict[str, Any]


Loader = Callable[[Connection, set[str]], dict[str, Document]]
"""Loads the documents of the subjects with these ids. Deleted subjects are left out."""


def load_documents(
    connection: Connection, claims: Sequence[Claim], loaders: Mapping[str, Loader]
) -> dict[UUID, Document]:
    """The document of the subject of each event, by delivery id. Deliveries whose subject was deleted are left out.

    Args:
        loaders: the loader for each type of event, for example `LOADERS`.
    """
    subjects: dict[Loader, set[str]] = {}
    for claim in claims:
        if claim.event in loaders:
            subjects.setdefault(loaders[claim.event], set()).add(claim.subject_id)
    loaded = {loader: loader(connection, ids) for loader, ids in subjects.items()}
    return {
        claim.id: document
        for claim in claims
        if claim.event in loaders and (document := loaded[loaders[claim.event]].get(claim.subject_id)) is not None
    }


def _inspections(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    ids = [UUID(subject) for subject in subjects]
    return {
        str(inspection.id): Inspection.of(inspection).model_dump(mode="json")
        for start in range(0, len(ids), _IDS_PER_QUERY)
        for inspection in inspections.by_ids(connection, ids[start : start + _IDS_PER_QUERY]).values()
    }


def _batches(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    found = batches.by_ids(connection, map(UUID, subjects)).values()
    return {str(batch.id): Batch.of(batch).model_dump(mode="json") for batch in found}


def _model_versions(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    # One query for each version: there are few of these events.
    loaded = {subject: _model_version(connection, int(subject)) for subject in subjects}
    return {subject: document for subject, document in loaded.items() if document is not None}


def _model_version(connection: Connection, version_id: int) -> Document | None:
    versions = tables.model_versions
    if connection.execute(select(versions.c.id).where(versions.c.id == version_id)).one_or_none() is None:
        return None
    version = model_versions.by_id(connection, version_id)
    in_force = thresholds.in_force(connection, version_id)
    # Without the manifest, which may have megabytes, and without what only the store knows.
    return ModelVersion.of(version, in_force).model_dump(mode="json", exclude={"manifest", "bundle_bytes"})


def _tests(_: Connection, subjects: set[str]) -> dict[str, Document]:
    return {
        subject: {"endpoint_id": subject, "message": "This is a test event from Linewatch. The endpoint works."}
        for subject in subjects
    }


LOADERS: Final[Mapping[str, Loader]] = {
    **dict.fromkeys(_OF_INSPECTIONS, _inspections),
    EventType.BATCH_COMPLETED: _batches,
    EventType.MODEL_ACTIVATED: _model_versions,
    EventType.ENDPOINT_TEST: _tests,
}
"""Loaders for events of inspections, batches, model versions and endpoints. Other packages define more."""


def body(message: Message, documents: dict[UUID, Document]) -> bytes | None:
    """The JSON body of a message, without events whose subject was deleted; None if no event remains.

    Args:
        documents: by delivery id, from `load_documents`.
    """
    events = [
        {
            "id": str(claim.id),
            "type": claim.event,
            "timestamp": _rfc3339(claim.occurred_at),
            "data": documents[claim.id],
        }
        for claim in message.claims
        if claim.id in documents
    ]
    if not events:
        return None
    if message.grouped:
        newest = max(claim.occurred_at for claim in message.claims)
        content: Document = {"type": "group", "timestamp": _rfc3339(newest), "data": events}
    else:
        content = {name: events[0][name] for name in ("type", "timestamp", "data")}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
