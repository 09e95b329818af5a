"""The JSON documents that answers, webhooks and the feed share: one for each noun."""

import datetime as dt
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection

from core.feed import feed
from core.inspection import inspections
from core.models import model_versions
from core.models import thresholds as limits
from core.queue import batches


class Model(BaseModel):
    """The model version that scored."""

    version: int
    sha256: str


class Image(BaseModel):
    """The stored image; width and height are in pixels, as displayed."""

    sha256: str
    width: int
    height: int
    bytes: int
    media_type: str


class Error(BaseModel):
    """Why an inspection failed."""

    code: str
    detail: str | None


class Review(BaseModel):
    """A person's overruling verdict. `actor` says with which API key it came: `key:` and its prefix."""

    id: UUID
    verdict: str
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime

    @classmethod
    def of(cls, one: inspections.Review) -> Self:
        return cls(**{name: getattr(one, name) for name in cls.model_fields})


class Inspection(BaseModel):
    """One image examined for one part. Times are RFC 3339 UTC, timings milliseconds."""

    id: UUID
    status: str
    recipe: str
    priority: str
    batch_id: UUID | None
    external_id: str | None
    part_id: str | None
    view: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    metadata: dict[str, Any]
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    is_anomaly: bool | None
    verdict: str | None
    effective_verdict: str | None
    reviews: list[Review]
    model: Model | None
    image: Image
    reasons: list[str]
    error: Error | None
    attempt: int
    captured_at: dt.datetime | None
    deadline_at: dt.datetime | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, one: inspections.Inspection) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if hasattr(one, name)}
        model = (
            Model(version=one.model_version, sha256=one.model_sha256.hex())
            if one.model_version is not None and one.model_sha256 is not None
            else None
        )
        image = Image(
            sha256=one.image_sha256.hex(),
            width=one.image_width,
            height=one.image_height,
            bytes=one.image_bytes,
            media_type=one.image_media_type,
        )
        error = Error(code=one.error_code, detail=one.error_detail) if one.error_code else None
        own["reviews"] = [Review.of(review) for review in one.reviews]
        return cls(**own, model=model, image=image, error=error)


class FeedItem(Inspection):
    """A place in the feed: an inspection as it stands, why it stands here, and the cursor behind it."""

    feed_event: str
    cursor: str

    @classmethod
    def of_entry(cls, entry: feed.Entry, one: inspections.Inspection) -> Self:
        return cls(**dict(Inspection.of(one)), feed_event=entry.event, cursor=str(entry.cursor))


def feed_items(connection: Connection, page: feed.Page) -> list[FeedItem]:
    """The items of a page of the feed; an inspection that was removed since has none."""
    found = inspections.by_ids(connection, {entry.inspection_id for entry in page.entries})
    return [
        FeedItem.of_entry(entry, found[entry.inspection_id]) for entry in page.entries if entry.inspection_id in found
    ]


class Batch(BaseModel):
    """Images that were submitted together, and how far they are."""

    id: UUID
    status: str
    counts: dict[str, int]
    created_at: dt.datetime
    closed_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def of(cls, one: batches.Batch) -> Self:
        return cls(
            id=one.id,
            status=one.state,
            counts=one.counts,
            created_at=one.created_at,
            closed_at=one.closed_at,
            finished_at=one.finished_at,
        )


class Threshold(BaseModel):
    """A threshold in force; `station_id` null means every station without one of its own."""

    threshold: float
    review_threshold: float | None
    station_id: str | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime

    @classmethod
    def of(cls, one: limits.Threshold) -> Self:
        return cls(**{name: getattr(one, name) for name in cls.model_fields})


class ModelVersion(BaseModel):
    """One immutable trained artefact of a recipe."""

    recipe: str
    version: int
    state: str
    active: bool
    sha256: str
    rejection: str | None
    manifest: dict[str, Any]
    thresholds: list[Threshold]
    created_at: dt.datetime
    decided_at: dt.datetime | None

    @classmethod
    def of(cls, one: model_versions.ModelVersion, in_force: list[limits.Threshold]) -> Self:
        return cls(
            recipe=one.recipe,
            version=one.version,
            state=one.state,
            active=one.active,
            sha256=one.sha256.hex(),
            rejection=one.rejection,
            manifest=one.manifest,
            thresholds=[Threshold.of(limit) for limit in in_force],
            created_at=one.created_at,
            decided_at=one.decided_at,
        )
