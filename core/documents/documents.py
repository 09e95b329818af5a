"""The JSON documents that responses, webhooks and the feed have in common."""

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
    """The model version that scored the image."""

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
    """A person's verdict, which overrules the machine's. `actor` is the API key: `key:` and its prefix."""

    id: UUID
    verdict: str
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime

    @classmethod
    def of(cls, review: inspections.Review) -> Self:
        return cls(**{name: getattr(review, name) for name in cls.model_fields})


class Inspection(BaseModel):
    """One image scored for one part. Times are RFC 3339 in UTC, timings are in milliseconds.

    `reasons` are the codes of the input checks that made the verdict `review`, such as `input_dark`, `input_depth` for
    an image of another bit depth than the training images, or `input_pose` for one without a part in the pose and size
    of good parts. `effective_verdict` is the verdict that the `reviews` decided, or the machine's if there are none; it
    is `review` as long as a person has to decide.
    """

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
    def of(cls, inspection: inspections.Inspection, **others: Any) -> Self:
        """The document of an inspection. `others` are the fields that a subclass adds."""
        fields = {name: getattr(inspection, name) for name in cls.model_fields if hasattr(inspection, name)} | others
        model = (
            Model(version=inspection.model_version, sha256=inspection.model_sha256.hex())
            if inspection.model_version is not None and inspection.model_sha256 is not None
            else None
        )
        image = Image(
            sha256=inspection.image_sha256.hex(),
            width=inspection.image_width,
            height=inspection.image_height,
            bytes=inspection.image_bytes,
            media_type=inspection.image_media_type,
        )
        error = Error(code=inspection.error_code, detail=inspection.error_detail) if inspection.error_code else None
        fields["reviews"] = [Review.of(review) for review in inspection.reviews]
        return cls(**fields, model=model, image=image, error=error)


class FeedItem(Inspection):
    """An entry of the feed: the current inspection, the event that added the entry, and the cursor behind it."""

    feed_event: str
    cursor: str

    @classmethod
    def of_entry(cls, entry: feed.Entry, inspection: inspections.Inspection) -> Self:
        return cls.of(inspection, feed_event=entry.event, cursor=str(entry.cursor))


def feed_items(connection: Connection, page: feed.Page) -> list[FeedItem]:
    """The items of a page of the feed. Entries of deleted inspections are left out."""
    if not page.entries:
        return []
    by_id = inspections.final_by_ids(connection, {entry.inspection_id for entry in page.entries})
    return [
        FeedItem.of_entry(entry, by_id[entry.inspection_id]) for entry in page.entries if entry.inspection_id in by_id
    ]


class Batch(BaseModel):
    """Images that were submitted together, with their counts by status and verdict."""

    id: UUID
    status: str
    counts: dict[str, int]
    created_at: dt.datetime
    closed_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def of(cls, batch: batches.Batch) -> Self:
        return cls(
            id=batch.id,
            status=batch.state,
            counts=batch.counts,
            created_at=batch.created_at,
            closed_at=batch.closed_at,
            finished_at=batch.finished_at,
        )


class Threshold(BaseModel):
    """A threshold. If `station_id` is null, it applies to every station without a station threshold.

    `actor` is the API key that set it: `key:` and its prefix. `reason` is why, if it was given.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime
    actor: str | None
    reason: str | None

    @classmethod
    def of(cls, threshold: limits.Threshold) -> Self:
        return cls(**{name: getattr(threshold, name) for name in cls.model_fields})


class ModelVersion(BaseModel):
    """An immutable trained model of a recipe.

    `manifest` is that of its bundle. Its `metrics` are the detection on labelled images. Its `detectability` is the
    share of synthetic defects that reach the threshold, by kind, size and contrast, with a `statement` in sentences;
    `fit_for_use` is false if almost nothing is caught, and then `reasons` and `advice` say why and what to try. Both
    are null if they were not measured. `bundle_bytes` is the size of its bundle, null if the store has none.
    """

    recipe: str
    version: int
    state: str
    active: bool
    sha256: str
    rejection: str | None
    manifest: dict[str, Any]
    thresholds: list[Threshold]
    bundle_bytes: int | None
    created_at: dt.datetime
    decided_at: dt.datetime | None

    @classmethod
    def of(
        cls, version: model_versions.ModelVersion, in_force: list[limits.Threshold], bundle_bytes: int | None = None
    ) -> Self:
        return cls(
            recipe=version.recipe,
            version=version.version,
            state=version.state,
            active=version.active,
            sha256=version.sha256.hex(),
            rejection=version.rejection,
            manifest=version.manifest,
            thresholds=[Threshold.of(limit) for limit in in_force],
            bundle_bytes=bundle_bytes,
            created_at=version.created_at,
            decided_at=version.decided_at,
        )
