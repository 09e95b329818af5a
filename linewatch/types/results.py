"""The typed responses of a running system. Fields that a newer system adds are in `document`."""

import datetime as dt
from typing import Any
from uuid import UUID

import msgspec

from linewatch.types.base import Result


class Model(Result, frozen=True):
    """The model version that scored."""

    version: int
    sha256: str


class Image(Result, frozen=True):
    """The stored image; width and height are in pixels, as displayed."""

    sha256: str
    width: int
    height: int
    bytes: int
    media_type: str


class Failure(Result, frozen=True):
    """Why an inspection failed; `code` is stable."""

    code: str
    detail: str | None


class Review(Result, frozen=True):
    """A person's verdict, which overrules the machine's.

    Attributes:
        actor: the API key, as `key:` and its prefix; `local` if authentication is off.
    """

    id: UUID
    verdict: str
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime


class Inspection(Result, frozen=True):
    """One image, inspected for one part.

    Attributes:
        status: `queued`, `running`, `completed`, `failed` or `cancelled`.
        view: the view, if a part has several images.
        anomaly_score, threshold, verdict: null unless completed; the verdict is `ok`, `ng` or `review`.
        effective_verdict: what its `reviews` decided, else the machine's verdict; `review` if a person has to decide.
        timings_ms: milliseconds by the system's clock: `queue`, `load`, `decode`, `score`, and `total` from acceptance
            to the commit of the result.
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
        """Whether it is completed, failed or cancelled."""
        return self.status in ("completed", "failed", "cancelled")


class RefusedImage(Result, frozen=True):
    """A rejected image of a burst; the others are not affected."""

    external_id: str | None
    code: str
    detail: str
    status: int


class Batch(Result, frozen=True):
    """Images that were submitted together.

    Attributes:
        status: `open`, `running`, `completed` or `cancelled`.
        counts: `total`, `queued`, `running`, `completed`, `failed`, `cancelled`, `ok`, `ng`, `review`.
        inspections, errors: the accepted and rejected images; only in the response to the burst itself.
    """

    id: UUID
    status: str
    counts: dict[str, int]
    created_at: dt.datetime
    closed_at: dt.datetime | None
    finished_at: dt.datetime | None
    inspections: list[Inspection] = msgspec.field(default_factory=list)
    errors: list[RefusedImage] = msgspec.field(default_factory=list)

    @property
    def final(self) -> bool:
        """Whether every one of its inspections is final."""
        return self.status in ("completed", "cancelled")

    @property
    def done(self) -> int:
        """How many of its inspections are final."""
        return sum(self.counts[name] for name in ("completed", "failed", "cancelled"))


class Challenger(Result, frozen=True):
    """A model version that scores a share of live images in the shadow of the active one, as the run `run_id`."""

    model_version: int
    share: float
    run_id: UUID


class Recipe(Result, frozen=True):
    """A recipe.

    Attributes:
        bit_depth: `auto`, or 8, 10, 12, 14 or 16: what the next training is asked for.
        second_review: whether two people must agree on a review.
        role: `inspection`, or `reference` for a recipe that only serves to compare others with.
        retention: the days that images and inspections are kept; None keeps them for ever.
        active_version: the number of its active model version, null if it has none.
    """

    name: str
    state: str
    without_model: str
    active_version: int | None
    created_at: dt.datetime
    updated_at: dt.datetime
    challenger: Challenger | None = None
    bit_depth: int | str = "auto"
    second_review: bool = False
    role: str = "inspection"
    retention: dict[str, int | None] | None = None


class Threshold(Result, frozen=True):
    """A threshold in force: scores at or above it are `ng`.

    Attributes:
        station_id: null if it applies to every station without its own threshold.
        calibration: the expected false-reject rate and how it was measured; null if a person set the threshold.
        actor, reason: who set it, and why; null if that is unknown.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime
    actor: str | None = None
    reason: str | None = None


class Example(Result, frozen=True):
    """An inspection and its score."""

    id: UUID
    anomaly_score: float


class Flip(Result, frozen=True):
    """Inspections whose verdict a threshold would have changed.

    Attributes:
        before, after: the recorded and the new verdict; `from` and `to` in JSON.
        count: how many inspections.
        examples: the newest of them.
    """

    before: str = msgspec.field(name="from")
    after: str = msgspec.field(name="to")
    count: int
    examples: list[Example]


class ThresholdPreview(Result, frozen=True):
    """What a threshold would have changed in past inspections.

    Attributes:
        inspections: how many were compared.
        truncated: whether older ones were left out, because there are too many.
        reviewed: how many reviewed ones there are, by the verdict of the newest review, then by that of the threshold.
        agreement: the share of the reviewed ones with the same verdict, 0 to 1.
        expected_false_reject_rate: `rate`, `confidence_interval` and more; null if no scores of good parts are stored.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    since: dt.datetime
    inspections: int
    truncated: bool
    flips: list[Flip]
    reviewed: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    agreement: float | None = None
    expected_false_reject_rate: dict[str, Any] | None = None


class ModelVersion(Result, frozen=True):
    """One immutable bundle of a recipe.

    Attributes:
        state: `uploaded`, `ready`, `rejected` or `retired` (without its bundle).
        rejection: why a worker rejected it.
        manifest: `manifest.json` of its bundle; empty in a webhook, because it may be large.
        thresholds: the thresholds in force.
        bundle_bytes: the size of its bundle; None if the store has none, and in a webhook.
    """

    recipe: str
    version: int
    state: str
    active: bool
    sha256: str
    rejection: str | None
    thresholds: list[Threshold]
    created_at: dt.datetime
    decided_at: dt.datetime | None
    manifest: dict[str, Any] = msgspec.field(default_factory=dict)
    bundle_bytes: int | None = None

    @property
    def threshold(self) -> Threshold:
        """The threshold of every station without its own threshold."""
        return self.threshold_at(None)

    def threshold_at(self, station_id: str | None) -> Threshold:
        """The threshold of a station: its own, or the common one."""
        by_station = {threshold.station_id: threshold for threshold in self.thresholds}
        return by_station.get(station_id, by_station[None])


class InspectionPage(Result, frozen=True):
    """One page of a listing."""

    items: list[Inspection]
    next_cursor: str | None


class FeedItem(Inspection, frozen=True):
    """An inspection in the feed.

    Attributes:
        feed_event: `final`, or `reviewed` if it is repeated because of a review.
        cursor: its position in the feed; `results(after=cursor)` continues after it.
    """

    feed_event: str
    cursor: str


class FeedPage(Result, frozen=True):
    """One page of the feed; an empty page has a `next_cursor`, too."""

    items: list[FeedItem]
    next_cursor: str


class Consumer(Result, frozen=True):
    """A reader of the feed whose cursor the system saves; `behind` is how many entries it has not acknowledged."""

    name: str
    cursor: str
    behind: int
    created_at: dt.datetime
    acknowledged_at: dt.datetime


class PartView(Result, frozen=True):
    """The newest inspection of a part by one recipe from one view; `view` is null if it was not given."""

    view: str | None
    recipe: str
    inspection: Inspection


class Part(Result, frozen=True):
    """One part, with the combined verdict of its views.

    Attributes:
        status: `running` while one of its views is not final, else `completed`.
        verdict, effective_verdict: `ng` if any view is, else `review` if any is or has no verdict, else null while any
            view is not final, else `ok`; the first uses the machine's verdicts, the second the effective ones.
        counts: how many views there are, by status and by the machine's verdict.
    """

    part_id: str
    status: str
    verdict: str | None
    effective_verdict: str | None
    counts: dict[str, int]
    views: list[PartView]


class Endpoint(Result, frozen=True):
    """A webhook endpoint: a URL that receives events.

    Attributes:
        recipes: the recipes whose events it receives; null for all.
        state: `enabled` or `disabled`.
        failing_since: when tries began to fail; null if the latest try succeeded.
        max_group_size, max_group_delay_ms: the most events in one request, and how long an event may wait for others.
        secret: `whsec_…`, only in the responses to `create_endpoint` and `rotate_secret`.
        previous_secret_until: until when requests are also signed with the previous secret; only in the response to
            `rotate_secret`.
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


class Attempt(Result, frozen=True):
    """One try of a delivery; `outcome` is a word, `status` the HTTP status if there was a response."""

    at: dt.datetime
    outcome: str
    status: int | None
    duration_ms: float
    answer: str


class Delivery(Result, frozen=True):
    """One event on its way to one endpoint.

    Attributes:
        state: `pending`, `delivered`, `exhausted` or `cancelled`.
        next_try_at: null if there will be none.
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


class DeliveryPage(Result, frozen=True):
    """One page of the deliveries of an endpoint."""

    items: list[Delivery]
    next_cursor: str | None
