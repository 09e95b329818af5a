"""The state of the running system."""

import datetime as dt

from linewatch.types.base import Result


class Health(Result, frozen=True):
    """`status` is `ok`, `degraded` or `down`; `reasons` says what needs attention, in sentences."""

    status: str
    reasons: list[str]


class Queue(Result, frozen=True):
    """A queue; see `GET /v1/system` of the API.

    Attributes:
        waiting, running, waiting_for_model: inspections; null for a queue of other tasks.
        messages: in Redis; null if it cannot be reached.
    """

    name: str
    waiting: int | None
    running: int | None
    waiting_for_model: int | None
    oldest_age_s: float | None
    messages: int | None


class Worker(Result, frozen=True):
    """A process that works in the background.

    Attributes:
        kind: `scoring`, `io`, `dispatcher` or `training`.
        state: `starting`, `ready`, `unready`, `stopping` or `lost`.
        minibatch_fill, images_per_second: means of the last five minutes; null for other kinds than `scoring`.
    """

    name: str
    kind: str
    state: str
    version: str
    device: str | None
    minibatch_fill: float | None
    images_per_second: float | None
    started_at: dt.datetime
    heartbeat_at: dt.datetime
    heartbeat_age_s: float


class System(Result, frozen=True):
    """The state of the system. Its `document` also has the store, the database, consumers and webhook endpoints.

    Attributes:
        rescues, poison: of the last hour.
    """

    health: Health
    version: str
    schema_version: str
    queues: list[Queue]
    workers: list[Worker]
    rescues: int
    poison: int
