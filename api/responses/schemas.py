"""What the api answers: one class for each noun, made from what core gives."""

import datetime as dt
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from core.delivery import deliveries, endpoints
from core.documents.documents import Batch, FeedItem, Inspection, ModelVersion
from core.documents.opcua import OpcUaResult
from core.feed import consumers, feed
from core.inspection.parts import Part as PartNow
from core.inspection.threshold_preview import Preview
from core.models import recipes
from core.rescoring import gate, runs
from core.rescoring.documents import RescoreRun
from core.rescoring.reports.documents import RescoreResult


def binary(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers with bytes of these types."""
    return {200: {"content": {one: {"schema": {"type": "string", "format": "binary"}} for one in media_types}}}


class Problem(BaseModel):
    """A refusal (RFC 9457). `code` is stable and for programs, `detail` is for people."""

    type: str = Field(description="`urn:linewatch:problem:` and the code")
    title: str
    status: int
    detail: str
    code: str


class LostCursor(Problem):
    """The refusal of a cursor that leads nowhere any more."""

    resume_after: str | None = Field(description="from where to go on; null: from the oldest entry, without a cursor")


class RescoreResultPage(BaseModel):
    """Results of a re-scoring run, in the order of its source. `next_cursor` null: there are no more now."""

    items: list[RescoreResult]
    next_cursor: str | None


class GateOutcome(BaseModel):
    """How a re-scoring run fares with one rule of a gate."""

    rule: str
    limit: float = Field(description="a share from 0 to 1; of `min_…` a number of parts")
    measured: float | None = Field(description="what the run has, in the same unit; null where nothing can be said")
    count: int = Field(description="a share is `count` of `of`")
    of: int
    bound: float | None = Field(
        description="of a share: with 95 % confidence it is not above this (Clopper-Pearson, one-sided)"
    )
    met: bool = Field(description="false also where nothing can be said")
    detail: str | None = Field(description="why nothing can be said")

    @classmethod
    def of_rule(cls, one: gate.RuleOutcome) -> Self:
        return cls(**one.to_json())


class GateNotMet(Problem):
    """The refusal of an activation; `gate` is there with the code `gate_not_met` only."""

    gate: list[GateOutcome] | None = Field(None, description="every rule of the gate, with what the run has")


class RunActivation(BaseModel):
    """What came of an activation or of its rollback: `model_version` is the one that scores now."""

    activated: bool = Field(description="whether what the run assessed scores now")
    gate: list[GateOutcome]
    run: RescoreRun
    model_version: ModelVersion


class InspectionPage(BaseModel):
    """One page of a listing; `next_cursor` is null on the last one."""

    items: list[Inspection]
    next_cursor: str | None


class OpcUaPage(BaseModel):
    """One page of a listing in the vocabulary of OPC UA; `next_cursor` is null on the last one."""

    items: list[OpcUaResult]
    next_cursor: str | None


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


class PartView(BaseModel):
    """One image of a part: of each recipe and view the newest inspection."""

    view: str | None
    recipe: str
    inspection: Inspection


class Part(BaseModel):
    """A part, judged by its views. `ng` if any of them is; else `review` if any is, has failed or was cancelled; else
    null while any is in flight; else `ok`. `counts` are the machine's verdicts."""

    part_id: str
    status: Literal["running", "completed"]
    verdict: str | None
    effective_verdict: str | None
    counts: dict[str, int]
    views: list[PartView]

    @classmethod
    def of(cls, one: PartNow) -> Self:
        return cls(
            part_id=one.part_id,
            status=one.status,
            verdict=one.verdict,
            effective_verdict=one.effective_verdict,
            counts=one.counts,
            views=[PartView(view=seen.view, recipe=seen.recipe, inspection=Inspection.of(seen)) for seen in one.views],
        )


class Challenger(BaseModel):
    """A model version that scores a share of live images in the active one's shadow, as a re-scoring run."""

    model_version: int
    share: float
    run_id: UUID

    @classmethod
    def of_run(cls, one: runs.Run) -> Self:
        return cls(model_version=one.model_version, share=one.source["live"]["share"], run_id=one.id)


class Recipe(BaseModel):
    """What is inspected. `without_model` says whether images are refused or wait while there is no active version."""

    name: str
    state: str
    without_model: str
    active_version: int | None
    challenger: Challenger | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, one: recipes.Recipe, challenger: runs.Run | None) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if name != "challenger"}
        return cls(**own, challenger=None if challenger is None else Challenger.of_run(challenger))


class RescoreRunPage(BaseModel):
    """One page of a listing; `next_cursor` is null on the last one."""

    items: list[RescoreRun]
    next_cursor: str | None


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
    def of(cls, found: Preview, **asked: Any) -> Self:
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


def without_path(url: str) -> str:
    """A URL for readers who may not see secrets in its path or query: `https://host:port/…`."""
    parts = urlsplit(url)
    shown = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    return url if url.rstrip("/") == shown else f"{shown}/…"


class WebhookEndpoint(BaseModel):
    """An address that is called for some events. `recipes` null means those of every recipe."""

    id: UUID
    url: str
    events: list[str]
    recipes: list[str] | None
    description: str
    state: str
    disabled_because: str | None
    max_group_size: int
    max_group_delay_ms: int
    failing_since: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, endpoint: endpoints.Endpoint, *, with_path: bool = True, **more: Any) -> Self:
        """The document of an endpoint. Without `with_path`, its URL has no path and query: they may carry secrets."""
        fields = {name: getattr(endpoint, name) for name in WebhookEndpoint.model_fields}
        if not with_path:
            fields["url"] = without_path(endpoint.url)
        return cls(**fields, **more)


class WebhookEndpointList(BaseModel):
    """All webhook endpoints, oldest first."""

    items: list[WebhookEndpoint]


class NewWebhookEndpoint(WebhookEndpoint):
    """A new endpoint and the secret that its calls are signed with, which is shown only now."""

    secret: str


class RotatedSecret(WebhookEndpoint):
    """An endpoint and its new secret, which is shown only now. The previous one signs, too, until it expires."""

    secret: str
    previous_secret_until: dt.datetime


class Prediction(BaseModel):
    """The answer of the synchronous interface."""

    anomaly_score: float
    threshold: float
    is_anomaly: bool


class DeliveryAttempt(BaseModel):
    """One try: what came of it, the answer's HTTP status and its beginning, or what went wrong."""

    at: dt.datetime
    outcome: deliveries.Outcome
    status: int | None
    duration_ms: float
    answer: str


class Delivery(BaseModel):
    """One event to one webhook endpoint. `next_try_at` is null once it is final.

    `message_id` is the `webhook-id` that it is sent under, the same on every try; null before the first one.
    """

    id: UUID
    endpoint_id: UUID
    event: str
    subject_id: str
    url: str
    state: deliveries.State
    tries: int
    occurred_at: dt.datetime
    next_try_at: dt.datetime | None
    finished_at: dt.datetime | None
    message_id: UUID | None
    attempts: list[DeliveryAttempt]

    @classmethod
    def of(cls, delivery: deliveries.Delivery, *, with_path: bool = True) -> Self:
        """The document of a delivery; see `WebhookEndpoint.of`."""
        fields = {name: getattr(delivery, name) for name in cls.model_fields if name != "attempts"}
        if not with_path:
            fields["url"] = without_path(delivery.url)
        return cls(**fields, attempts=[DeliveryAttempt(**vars(attempt)) for attempt in delivery.attempts])


class DeliveryPage(BaseModel):
    """One page of deliveries; `next_cursor` is null on the last one."""

    items: list[Delivery]
    next_cursor: str | None
