"""The JSON document of the running system."""

import datetime as dt
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

WorkerKind = Literal["scoring", "io", "dispatcher", "training"]


class Health(BaseModel):
    """The system in one line.

    `ok`: nothing needs attention. `degraded`: images are scored, but something needs attention. `down`: images are not
    scored, or cannot be stored.
    """

    status: Literal["ok", "degraded", "down"]
    reasons: list[str] = Field(description="what needs attention, in sentences; the most serious first")


class Queue(BaseModel):
    """A queue. PostgreSQL holds the work, Redis the messages that name it.

    `waiting` are inspections that no worker has taken, `running` those that one has, and `waiting_for_model` those of
    recipes without an active version; in the queue `training` they are training runs. They are null for `io`. A message
    names up to a minibatch of inspections; `messages` is null if Redis cannot be reached.
    """

    name: str
    waiting: int | None
    running: int | None
    waiting_for_model: int | None
    oldest_age_s: float | None = Field(description="how long the oldest of those that are `waiting` has waited")
    messages: int | None


class LoadedVersion(BaseModel):
    """A model version that a worker has loaded."""

    recipe: str
    version: int


class Worker(BaseModel):
    """A process that works in the background.

    `state` is that of its last heartbeat, or `lost` if that was more than 30 seconds ago. A worker that stops
    in order removes its entry; that of a lost one is removed after five minutes. `unready`: a scoring worker that
    cannot load a model version, or a dispatcher that cannot use Redis.

    `minibatch_fill` (0 to 1, the mean number of images in a minibatch, divided by the largest one) and
    `images_per_second` are means of the last five minutes, live and bulk work together; null for other kinds, and the
    fill without any minibatch.
    """

    name: str
    kind: WorkerKind
    state: Literal["starting", "ready", "unready", "stopping", "lost"]
    version: str
    device: str | None
    models: list[LoadedVersion]
    minibatch_fill: float | None
    images_per_second: float | None
    started_at: dt.datetime
    heartbeat_at: dt.datetime
    heartbeat_age_s: float


class Store(BaseModel):
    """The image store.

    `images` and `image_bytes` are the uploaded images that are recorded, counted at `counted_at`, every few minutes;
    null before the first count. Bundles, maps and reports are not among them. `disk_of` says whose disk that is, as
    the api sees it: that of the `store`'s folder or, if images are in a bucket, that of the `scratch` folder through
    which uploads pass. It is null if the disk cannot be read. With less than `min_free_bytes` free, uploads get 503
    `store_full`.
    """

    images: int | None
    image_bytes: int | None
    counted_at: dt.datetime | None
    disk_of: Literal["store", "scratch"] | None
    disk_bytes: int | None
    disk_free_bytes: int | None
    min_free_bytes: int | None


class ConsumerLag(BaseModel):
    """A consumer of the feed. `behind` is the number of entries not yet acknowledged, including reviews."""

    name: str
    behind: int
    acknowledged_at: dt.datetime


class EndpointState(BaseModel):
    """A webhook endpoint and its deliveries; counts end at 10,000.

    `exhausted` counts the deliveries of the last day whose last attempt failed. Only the scope `admin` gets the
    complete URL.
    """

    id: UUID
    url: str
    state: str
    disabled_because: str | None
    failing_since: dt.datetime | None
    pending: int
    exhausted: int


class System(BaseModel):
    """The state of the running system.

    `rescues` are inspections that lost their worker in the last hour and were queued again. `poison` are those of the
    last day that failed in the last hour because they ended their workers. `dispatcher_seen_at` is the last heartbeat
    of any dispatcher. Admins get all consumers, other keys their own.
    """

    health: Health
    version: str
    schema_version: str
    queues: list[Queue]
    workers: list[Worker]
    dispatcher_seen_at: dt.datetime | None
    rescues: int
    poison: int
    store: Store
    database_bytes: int
    consumers: list[ConsumerLag]
    webhook_endpoints: list[EndpointState]
