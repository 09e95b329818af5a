"""The JSON document of a re-scoring run, in answers and webhooks."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection

from core.documents.documents import Model
from core.documents.payloads import Document, Loader
from core.feed.events import EventType
from core.rescoring import runs


class Progress(BaseModel):
    """How far a run is: `share` of its images from 0 to 1, `rate` in images a second. None: not known."""

    done: int
    share: float | None
    rate: float
    seconds_left: float | None


class RescoreRun(BaseModel):
    """A pass over an archive with a model version and its thresholds, or a challenger in the shadow of the active one.

    `counts` holds `total` (null until it has been counted), `planned`, `completed`, `failed`, the verdicts `ok`, `ng`
    and `review`, the flips `ok_to_ng` and `ng_to_ok` against the verdicts that were recorded, and `skipped`: images
    of a challenger's share that it passed over because it had fallen more than an hour behind the line.
    """

    id: UUID
    status: str
    kind: str
    recipe: str
    model: Model
    source: dict[str, Any]
    recompute: bool
    threshold: float | None
    review_threshold: float | None
    limits: dict[str, Any]
    window: str | None
    time_zone: str | None
    max_failure_rate: float
    schedule_id: UUID | None
    reason: str | None
    counts: dict[str, int | None]
    progress: Progress
    activation: dict[str, Any] | None
    created_by: str
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def of(cls, one: runs.Run) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if hasattr(one, name)}
        own |= {
            "status": one.state,
            "model": Model(version=one.model_version, sha256=one.model_sha256.hex()),
            "limits": one.limits.stored(),
            "counts": {"total": one.total, "planned": one.planned, **one.counts, "skipped": one.skipped},
            "progress": Progress(
                done=one.done,
                share=one.done / one.total if one.total else None,
                rate=round(one.rate, 2),
                seconds_left=None if one.seconds_left is None else round(one.seconds_left, 1),
            ),
            "created_by": one.actor,
        }
        return cls(**own)


def _of_events(connection: Connection, subjects: set[str]) -> dict[str, Document]:
    found = runs.by_ids(connection, map(UUID, subjects)).values()
    return {str(one.id): RescoreRun.of(one).model_dump(mode="json") for one in found}


LOADERS: Final[Mapping[str, Loader]] = dict.fromkeys(
    (EventType.RESCORE_RUN_PROGRESS, EventType.RESCORE_RUN_COMPLETED, EventType.RESCORE_RUN_FAILED), _of_events
)
"""Of the events of runs, see `core.documents.payloads.documents`."""
