"""What a running system answers, typed. Fields that a newer system adds are kept and appear in `model_dump`."""

import datetime as dt
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Result(BaseModel):
    """An answer; immutable."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Model(Result):
    """The model version that scored."""

    version: int
    sha256: str


class Image(Result):
    """The stored image; width and height are in pixels, as displayed."""

    sha256: str
    width: int
    height: int
    bytes: int
    media_type: str


class Failure(Result):
    """Why an inspection failed; `code` is stable."""

    code: str
    detail: str | None


class Review(Result):
    """A person's verdict, which overrules the machine's.

    Attributes:
        actor: with which API key it came: `key:` and its prefix; `local` where there are no keys.
    """

    id: UUID
    verdict: str
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime


class Inspection(Result):
    """One image examined for one part.

    Attributes:
        status: `queued`, `running`, `completed`, `failed` or `cancelled`.
        view: which of several images of one part it is.
        anomaly_score, threshold, verdict: null unless completed; the verdict is `ok`, `ng` or `review`.
        effective_verdict: that of the newest of its `reviews`, the machine's where there are none.
        timings_ms: milliseconds by the system's clock: `queue`, `load`, `decode`, `score`, and `total` from the
            moment that it was accepted to the moment that its result was written.
    """

    id: UUID
    status: str
    recipe: str
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
    error: Failure | None
    attempt: int
    captured_at: dt.datetime | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    timings_ms: dict[str, float]

    @property
    def final(self) -> bool:
        """Whether nothing will change it any more."""
        return self.status in ("completed", "failed", "cancelled")


class RefusedImage(Result):
    """An image of a burst that was refused; its neighbours were not."""

    external_id: str | None
    code: str
    detail: str
    status: int


class Batch(Result):
    """Images that were submitted together.

    Attributes:
        status: `open`, `running`, `completed` or `cancelled`.
        counts: `total`, `queued`, `running`, `completed`, `failed`, `cancelled`, `ok`, `ng`, `review`.
        inspections, errors: what was accepted and what was refused of a burst; only in the answer to the burst itself.
    """

    id: UUID
    status: str
    counts: dict[str, int]
    created_at: dt.datetime
    closed_at: dt.datetime | None
    finished_at: dt.datetime | None
    inspections: list[Inspection] = []
    errors: list[RefusedImage] = []

    @property
    def final(self) -> bool:
        """Whether every one of its inspections is final."""
        return self.status in ("completed", "cancelled")

    @property
    def done(self) -> int:
        """How many of its inspections are final."""
        return sum(self.counts[name] for name in ("completed", "failed", "cancelled"))


class Challenger(Result):
    """A model version that scores a share of live images in the active one's shadow, as the run `run_id`."""

    model_version: int
    share: float
    run_id: UUID


class Recipe(Result):
    """What is inspected; `active_version` is the number of the model version that scores, null where none does."""

    name: str
    state: str
    without_model: str
    active_version: int | None
    challenger: Challenger | None = None
    created_at: dt.datetime
    updated_at: dt.datetime


class Threshold(Result):
    """A threshold in force: scores at or above it are `ng`.

    Attributes:
        station_id: null for every station that has none of its own.
        calibration: what the threshold costs and how that is known; null where a person set it.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime


class Example(Result):
    """An inspection and its score."""

    id: UUID
    anomaly_score: float


class Flip(Result):
    """Inspections whose verdict a threshold would have changed.

    Attributes:
        before, after: the recorded verdict and what it would have been; `from` and `to` in JSON.
        count: of these inspections.
        examples: the newest of them.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    before: str = Field(alias="from")
    after: str = Field(alias="to")
    count: int
    examples: list[Example]


class ThresholdPreview(Result):
    """What a threshold would have changed among past inspections.

    Attributes:
        inspections: how many were looked at.
        truncated: whether there are older ones since then that were not.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    since: dt.datetime
    inspections: int
    truncated: bool
    flips: list[Flip]


class ModelVersion(Result):
    """One immutable trained artefact of a recipe.

    Attributes:
        state: `uploaded`, `ready`, `rejected` or `retired`.
        rejection: why a worker did not take it.
        manifest: `manifest.json` of its bundle; empty in a webhook, for it may be large.
        thresholds: those in force.
    """

    recipe: str
    version: int
    state: str
    active: bool
    sha256: str
    rejection: str | None
    manifest: dict[str, Any] = {}
    thresholds: list[Threshold]
    created_at: dt.datetime
    decided_at: dt.datetime | None

    @property
    def threshold(self) -> Threshold:
        """The threshold of every station that has none of its own."""
        return self.threshold_at(None)

    def threshold_at(self, station_id: str | None) -> Threshold:
        """The threshold that counts at a station: its own where there is one."""
        own = [one for one in self.thresholds if one.station_id == station_id]
        return own[0] if own else next(one for one in self.thresholds if one.station_id is None)


class InspectionPage(Result):
    """One page of a listing."""

    items: list[Inspection]
    next_cursor: str | None


class FeedItem(Inspection):
    """An inspection as the feed gives it.

    Attributes:
        feed_event: `final`, or `reviewed` where a person's verdict repeats it.
        cursor: its place in the feed; `results(after=cursor)` goes on with what follows.
    """

    feed_event: str
    cursor: str


class FeedPage(Result):
    """One page of the feed; `next_cursor` is there on an empty one too."""

    items: list[FeedItem]
    next_cursor: str


class Consumer(Result):
    """A reader of the feed whose place the system keeps; `behind` is how many entries it has not acknowledged."""

    name: str
    cursor: str
    behind: int
    created_at: dt.datetime
    acknowledged_at: dt.datetime


class PartView(Result):
    """The newest inspection of a part by one recipe from one view; `view` is null where it was not named."""

    view: str | None
    recipe: str
    inspection: Inspection


class Part(Result):
    """One part, as all of its views together judge it.

    Attributes:
        status: `running` while one of its views is not final, else `completed`.
        verdict, effective_verdict: `ng` if any view is, else `review` if any is or has no verdict, else null while any
            is in flight, else `ok`; by the machine, and with what people said.
        counts: how many views there are, by status and by the machine's verdict.
    """

    part_id: str
    status: str
    verdict: str | None
    effective_verdict: str | None
    counts: dict[str, int]
    views: list[PartView]


class Endpoint(Result):
    """A webhook endpoint: a URL that receives events.

    Attributes:
        recipes: the recipes whose events it gets; null for all.
        state: `enabled` or `disabled`.
        failing_since: when tries began to fail, null where the newest did not.
        max_group_size, max_group_delay_ms: how many events may come in one request, and how long one may wait for that.
        secret: `whsec_…`, only in the answers to `create_endpoint` and `rotate_secret`.
        previous_secret_until: until when the secret before signs too; only in the answer to `rotate_secret`.
    """

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
    secret: str | None = None
    previous_secret_until: dt.datetime | None = None


class Attempt(Result):
    """One try of a delivery; `outcome` says in a word how it ended, `status` is of HTTP where there was an answer."""

    at: dt.datetime
    outcome: str
    status: int | None
    duration_ms: float
    answer: str


class Delivery(Result):
    """One event on its way to one endpoint.

    Attributes:
        state: `pending`, `delivered`, `exhausted` or `cancelled`.
        next_try_at: null where there will be none.
        message_id: the `webhook-id` of its requests; null before the first.
    """

    id: UUID
    endpoint_id: UUID
    event: str
    subject_id: str
    url: str
    state: str
    tries: int
    occurred_at: dt.datetime
    next_try_at: dt.datetime | None
    finished_at: dt.datetime | None
    message_id: UUID | None
    attempts: list[Attempt]


class DeliveryPage(Result):
    """One page of the deliveries of an endpoint."""

    items: list[Delivery]
    next_cursor: str | None
