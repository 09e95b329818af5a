"""What the api answers: one class for each noun, made from what core gives."""

import datetime as dt
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from core import consumers, feed, inspections, recipes
from core import thresholds as limits
from core.documents import Batch, Inspection, ModelVersion


class InspectionPage(BaseModel):
    """One page of a listing; `next_cursor` is null on the last one."""

    items: list[Inspection]
    next_cursor: str | None


class FeedItem(Inspection):
    """A place in the feed: an inspection as it stands, why it stands here, and the cursor behind it."""

    feed_event: str
    cursor: str

    @classmethod
    def of_entry(cls, entry: feed.Entry, one: inspections.Inspection) -> Self:
        return cls(**dict(Inspection.of(one)), feed_event=entry.event, cursor=str(entry.cursor))


class FeedPage(BaseModel):
    """One page of the feed; `next_cursor` is always there."""

    items: list[FeedItem]
    next_cursor: str


class Consumer(BaseModel):
    """A consumer of the feed; `behind` is how many entries it has not acknowledged, reviews included."""

    name: str
    cursor: str
    behind: int
    created_at: dt.datetime
    acknowledged_at: dt.datetime

    @classmethod
    def of_state(cls, one: consumers.Consumer, state: feed.State) -> Self:
        return cls(
            name=one.name,
            cursor=str(one.cursor),
            behind=state.newest - one.cursor.number,
            created_at=one.created_at,
            acknowledged_at=one.acknowledged_at,
        )


class ConsumerList(BaseModel):
    """All consumers of the feed, by name."""

    items: list[Consumer]


class BatchError(BaseModel):
    """An image of a batch that was refused."""

    external_id: str | None
    code: str
    detail: str
    status: int


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


class ModelVersionList(BaseModel):
    """The versions of a recipe, newest first."""

    items: list[ModelVersion]


class Prediction(BaseModel):
    """The answer of the synchronous interface."""

    anomaly_score: float
    threshold: float
    is_anomaly: bool
