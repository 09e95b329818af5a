"""What the api answers: one class for each noun, made from what core gives."""

import datetime as dt
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from core import batches, inspections, model_versions, recipes
from core import thresholds as limits


class Model(BaseModel):
    """The model version that scored."""

    version: int
    sha256: str


class Image(BaseModel):
    """The stored picture; width and height are in pixels, as displayed."""

    sha256: str
    width: int
    height: int
    bytes: int
    media_type: str


class Error(BaseModel):
    """Why an inspection failed."""

    code: str
    detail: str | None


class Inspection(BaseModel):
    """One image examined for one part. Times are RFC 3339 UTC, timings milliseconds."""

    id: UUID
    status: str
    recipe: str
    priority: str
    batch_id: UUID | None
    external_id: str | None
    part_id: str | None
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
    reviews: list[dict[str, Any]]
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
        return cls(**own, effective_verdict=one.verdict, reviews=[], model=model, image=image, error=error)


class InspectionPage(BaseModel):
    """One page of a listing; `next_cursor` is null on the last one."""

    items: list[Inspection]
    next_cursor: str | None


class BatchError(BaseModel):
    """An image of a batch that was refused."""

    external_id: str | None
    code: str
    detail: str
    status: int


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


class SubmittedBatch(Batch):
    """The answer to a burst: its inspections, and what was refused of it."""

    inspections: list[Inspection]
    errors: list[BatchError]


class Recipe(BaseModel):
    """What is inspected. `without_model` says whether images are refused or wait while there is no active version."""

    name: str
    state: str
    without_model: str
    active_version: int | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, one: recipes.Recipe) -> Self:
        return cls(**{name: getattr(one, name) for name in cls.model_fields})


class RecipeList(BaseModel):
    """All recipes, by name."""

    items: list[Recipe]


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


class Example(BaseModel):
    """An inspection and its score."""

    id: UUID
    anomaly_score: float


class Flip(BaseModel):
    """Inspections whose verdict another threshold would have changed, and the newest of them."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    before: str = Field(alias="from", description="The verdict as it is recorded.")
    after: str = Field(alias="to", description="What it would have been.")
    count: int
    examples: list[Example]


class ThresholdPreview(BaseModel):
    """What a threshold would have changed. `inspections` were looked at; `truncated` says that there are more."""

    threshold: float
    review_threshold: float | None
    station_id: str | None
    since: dt.datetime
    inspections: int
    truncated: bool
    flips: list[Flip]

    @classmethod
    def of(cls, found: limits.Preview, **asked: Any) -> Self:
        flips = [
            Flip(
                before=flip.before,
                after=flip.after,
                count=flip.count,
                examples=[Example(id=one_id, anomaly_score=score) for one_id, score in flip.examples],
            )
            for flip in found.flips
        ]
        return cls(**asked, inspections=found.inspections, truncated=found.truncated, flips=flips)


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


class ModelVersionList(BaseModel):
    """The versions of a recipe, newest first."""

    items: list[ModelVersion]


class Prediction(BaseModel):
    """The answer of the synchronous interface."""

    anomaly_score: float
    threshold: float
    is_anomaly: bool
