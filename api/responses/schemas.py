"""The JSON documents in the responses of the api."""

import datetime as dt
from typing import Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from pydantic import BaseModel, Field

from core.delivery import deliveries, endpoints
from core.documents.documents import Batch, FeedItem, Inspection, ModelVersion
from core.documents.opcua import OpcUaResult
from core.feed import consumers, feed
from core.inspection import parts
from core.models import recipes
from core.models.bit_depths import BitDepthChoice
from core.models.retention_policies import RetentionPolicy
from core.rescoring import gate, runs
from core.rescoring.documents import RescoreRun
from core.rescoring.reports.documents import RescoreResult
from core.training_runs.documents import TrainingRun


def binary(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that responds with bytes of these types."""
    return {200: {"content": {name: {"schema": {"type": "string", "format": "binary"}} for name in media_types}}}


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable and meant for programs, `detail` is meant for people."""

    type: str = Field(description="`urn:linewatch:problem:` and the code")
    title: str
    status: int
    detail: str
    code: str


class LostCursor(Problem):
    """The error for a cursor that is no longer valid."""

    resume_after: str | None = Field(
        description="continue after this cursor; null: without a cursor, from the oldest entry"
    )


class RescoreResultPage(BaseModel):
    """Results of a re-scoring run, in the order of its source. `next_cursor` is null if there are no more now."""

    items: list[RescoreResult]
    next_cursor: str | None


class GateOutcome(BaseModel):
    """The outcome of one rule of a gate for a re-scoring run."""

    rule: str
    limit: float = Field(description="a share from 0 to 1; for `min_…` a number of parts")
    measured: float | None = Field(description="the value of the run, in the same unit; null if it cannot be computed")
    count: int = Field(description="the share is `count` divided by `of`")
    of: int
    bound: float | None = Field(
        description="for a share: its upper bound with 95 % confidence (Clopper-Pearson, one-sided)"
    )
    met: bool = Field(description="also false if `measured` cannot be computed")
    detail: str | None = Field(description="why `measured` cannot be computed")

    @classmethod
    def of_rule(cls, outcome: gate.RuleOutcome) -> Self:
        return cls(**outcome.to_json())


class GateNotMet(Problem):
    """The error of an activation. It has `gate` only with the code `gate_not_met`."""

    gate: list[GateOutcome] | None = Field(None, description="the outcome of every rule of the gate")


class RunActivation(BaseModel):
    """The result of an activation or its rollback. `model_version` is the version that is active now."""

    activated: bool = Field(description="true after an activation, false after a rollback")
    gate: list[GateOutcome]
    run: RescoreRun
    model_version: ModelVersion


class InspectionPage(BaseModel):
    """One page of inspections. `next_cursor` is null on the last page."""

    items: list[Inspection]
    next_cursor: str | None


class OpcUaPage(BaseModel):
    """One page of inspections in the vocabulary of OPC UA. `next_cursor` is null on the last page."""

    items: list[OpcUaResult]
    next_cursor: str | None


class FeedPage(BaseModel):
    """One page of the feed. `next_cursor` is always present."""

    items: list[FeedItem]
    next_cursor: str


class Consumer(BaseModel):
    """A consumer of the feed. `behind` is the number of entries not yet acknowledged, including reviews."""

    name: str
    cursor: str
    behind: int
    created_at: dt.datetime
    acknowledged_at: dt.datetime

    @classmethod
    def of_state(cls, consumer: consumers.Consumer, state: feed.State) -> Self:
        return cls(
            name=consumer.name,
            cursor=str(consumer.cursor),
            behind=state.newest - consumer.cursor.number,
            created_at=consumer.created_at,
            acknowledged_at=consumer.acknowledged_at,
        )


class ConsumerList(BaseModel):
    """Consumers of the feed, by name."""

    items: list[Consumer]


class BatchError(BaseModel):
    """A refused image of a batch."""

    external_id: str | None
    code: str
    detail: str
    status: int


class SubmittedBatch(Batch):
    """The response to a batch submission: the batch, its inspections, and the refused images."""

    inspections: list[Inspection]
    errors: list[BatchError]


class PartView(BaseModel):
    """The newest inspection of a part for one recipe and view."""

    view: str | None
    recipe: str
    inspection: Inspection


class Part(BaseModel):
    """A part, with a verdict based on its views: `ng` if any view is `ng`; otherwise `review` if any view is `review`,
    failed or cancelled; otherwise null while any view is in flight; otherwise `ok`.

    `verdict` is based on the machine's verdicts, `effective_verdict` also on reviews. `counts` are numbers of views: in
    total, by status and by the machine's verdict.
    """

    part_id: str
    status: Literal["running", "completed"]
    verdict: str | None
    effective_verdict: str | None
    counts: dict[str, int]
    views: list[PartView]

    @classmethod
    def of(cls, part: parts.Part) -> Self:
        return cls(
            part_id=part.part_id,
            status=part.status,
            verdict=part.verdict,
            effective_verdict=part.effective_verdict,
            counts=part.counts,
            views=[PartView(view=view.view, recipe=view.recipe, inspection=Inspection.of(view)) for view in part.views],
        )


class Challenger(BaseModel):
    """A model version that scores a share of the live images in shadow mode, as a re-scoring run."""

    model_version: int
    share: float
    run_id: UUID

    @classmethod
    def of_run(cls, run: runs.Run) -> Self:
        return cls(model_version=run.model_version, share=run.source["live"]["share"], run_id=run.id)


class Recipe(BaseModel):
    """What to inspect.

    `without_model` says whether images are refused or wait while there is no active version. `bit_depth` is for the
    next training; scoring uses the bit depth of the active version. With `second_review`, two people must agree on a
    review. The `role` of a recipe that only serves to compare others with is `reference`. `retention` is null if
    everything is kept for ever.
    """

    name: str
    state: str
    without_model: str
    bit_depth: BitDepthChoice
    second_review: bool
    role: recipes.Role
    retention: RetentionPolicy | None
    active_version: int | None
    challenger: Challenger | None
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, recipe: recipes.Recipe, challenger: runs.Run | None) -> Self:
        fields = {name: getattr(recipe, name) for name in cls.model_fields if name != "challenger"}
        return cls(**fields, challenger=None if challenger is None else Challenger.of_run(challenger))


class RescoreRunPage(BaseModel):
    """One page of re-scoring runs. `next_cursor` is null on the last page."""

    items: list[RescoreRun]
    next_cursor: str | None


class TrainingRunPage(BaseModel):
    """One page of training runs. `next_cursor` is null on the last page."""

    items: list[TrainingRun]
    next_cursor: str | None


class AddedTrainingImages(BaseModel):
    """What was added to a training run. `images` has the number of its images of each label now."""

    added: int
    duplicates: int = Field(description="images that the run has already")
    errors: list[BatchError]
    images: dict[str, int]


class RecipeList(BaseModel):
    """All recipes, by name."""

    items: list[Recipe]


class ModelVersionList(BaseModel):
    """The versions of a recipe, newest first."""

    items: list[ModelVersion]


def without_path(url: str) -> str:
    """A URL without its path and query, which may contain secrets: `https://host:port/…`."""
    split = urlsplit(url)
    origin = urlunsplit((split.scheme, split.netloc, "", "", ""))
    return url if url.rstrip("/") == origin else f"{origin}/…"


class WebhookEndpoint(BaseModel):
    """A URL that is called for some events. If `recipes` is null, it is called for the events of all recipes."""

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
    def of(cls, endpoint: endpoints.Endpoint, *, with_path: bool = True, **further: Any) -> Self:
        """The document of an endpoint. Without `with_path`, its URL is reduced by `without_path`."""
        fields = {name: getattr(endpoint, name) for name in WebhookEndpoint.model_fields}
        if not with_path:
            fields["url"] = without_path(endpoint.url)
        return cls(**fields, **further)


class WebhookEndpointList(BaseModel):
    """All webhook endpoints, oldest first."""

    items: list[WebhookEndpoint]


class NewWebhookEndpoint(WebhookEndpoint):
    """A new endpoint, with the secret that signs its calls. The secret is shown only in this response."""

    secret: str


class RotatedSecret(WebhookEndpoint):
    """An endpoint and its new secret, which is shown only in this response.

    Calls are also signed with the previous secret until it expires.
    """

    secret: str
    previous_secret_until: dt.datetime


class Prediction(BaseModel):
    """The response of the synchronous interface."""

    anomaly_score: float
    threshold: float
    is_anomaly: bool


class DeliveryAttempt(BaseModel):
    """One try. `status` is the HTTP status; `answer` is the beginning of the response, or what went wrong."""

    at: dt.datetime
    outcome: deliveries.Outcome
    status: int | None
    duration_ms: float
    answer: str


class Delivery(BaseModel):
    """One event to one webhook endpoint. `next_try_at` is null once the delivery is final.

    `message_id` is the `webhook-id` of the message, which is the same on every try. It is null before the first try.
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
    """One page of deliveries. `next_cursor` is null on the last page."""

    items: list[Delivery]
    next_cursor: str | None
