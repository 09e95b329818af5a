"""The JSON document of a re-scoring run, in API responses and webhooks."""

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
    """The progress of a run: `share` of its images from 0 to 1, `rate` in images per second. Null means unknown."""

    done: int
    share: float | None
    rate: float
    seconds_left: float | None


class RescoreRun(BaseModel):
    """A run over an archive with a model version and its thresholds, or a challenger that scores live images.

    `counts` holds `total` (null until the images have been counted), `planned`, `completed`, `failed`, the verdicts
    `ok`, `ng` and `review`, the flips `ok_to_ng` and `ng_to_ok` against the recorded verdicts, and `skipped`: images
    that a challenger skipped because it had fallen more than an hour behind. `limits` are the thresholds of the run.
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
    def from_run(cls, run: runs.Run) -> Self:
        fields = {name: getattr(run, name) for name in cls.model_fields if hasattr(run, name)}
        fields |= {
            "status": run.state,
            "model": Model(version=run.model_version, sha256=run.model_sha256.hex()),
            "limits": run.thresholds.to_json(),
            "counts": {"total": run.total, "planned": run.planned, **run.counts, "skipped": run.skipped},
            "progress": Progress(
                done=run.done,
                share=run.done / run.total if run.total else None,
                rate=round(run.rate, 2),
                seconds_left=None if run.seconds_left is None else round(run.seconds_left, 1),
            ),
            "created_by": run.actor,
        }
        return cls(**fields)


def _load(connection: Connection, run_ids: set[str]) -> dict[str, Document]:
    found = runs.by_ids(connection, map(UUID, run_ids)).values()
    return {str(run.id): RescoreRun.from_run(run).model_dump(mode="json") for run in found}


LOADERS: Final[Mapping[str, Loader]] = dict.fromkeys(
    (EventType.RESCORE_RUN_PROGRESS, EventType.RESCORE_RUN_COMPLETED, EventType.RESCORE_RUN_FAILED), _load
)
"""Loads the documents for the events of runs; see `core.documents.payloads.load_documents`."""
