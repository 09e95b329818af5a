"""The queues of messages that a sender has claimed: for each endpoint, one for its events and one for its callbacks.

A queue starts with few calls at a time. It may make more while its receiver answers quickly, and falls back to few when
the receiver is slow or fails. So slow receivers leave capacity to the others, however many there are.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from core.delivery.endpoints import Endpoint
from core.delivery.sending import Message
from worker.delivery.http_sender import Connections

CALLS_PER_QUEUE = 8
"""Calls at a time to a receiver that answers quickly."""

CALLS_PER_SLOW_QUEUE = 2
"""Calls at a time to a receiver that is slow, or that has not answered yet."""

SLOW_SECONDS = 3.0
"""A receiver that takes longer than this to answer is slow."""

HELD_PER_QUEUE = 64
"""Messages that a quick queue holds at most: those in flight, and the next ones, ready to be sent."""

HELD_PER_SLOW_QUEUE = 2 * CALLS_PER_SLOW_QUEUE

MAX_CALLS = 512
"""Calls at a time of all queues. The second half is reserved for queues with fewer than `CALLS_PER_SLOW_QUEUE`."""

FRESH_SECONDS = 1.0
"""A message is only sent if its endpoint (its state, URL and secrets) was read within this time."""


@dataclass(frozen=True)
class PreparedMessage:
    """A message that is ready to be sent.

    Attributes:
        endpoint: the endpoint as it was when the message was claimed.
        claimed_at: on the monotonic clock of this process.
    """

    message: Message
    body: bytes = field(repr=False)
    endpoint: Endpoint
    claimed_at: float


@dataclass
class EndpointQueue:
    """The messages for one receiver that wait or are in flight.

    Attributes:
        read_at: when `endpoint` was read, on the monotonic clock.
        in_flight: the message of each call, and when the call began; the oldest call comes first.
        failures: failed calls since the last successful one.
        is_quick: whether the last answer came within `SLOW_SECONDS`.
        used_at: when the queue last received or sent a message.
    """

    connections: Connections
    endpoint: Endpoint
    read_at: float
    waiting: deque[PreparedMessage] = field(default_factory=deque)
    in_flight: dict[asyncio.Task[None], tuple[PreparedMessage, float]] = field(default_factory=dict)
    failures: int = 0
    is_quick: bool = False
    used_at: float = 0.0

    def add(self, prepared: PreparedMessage) -> None:
        """Add a message, and update the endpoint from it."""
        self.waiting.append(prepared)
        self.update_endpoint(prepared.endpoint, prepared.claimed_at)

    def update_endpoint(self, endpoint: Endpoint | None, read_at: float) -> None:
        """Replace the endpoint by a newer state. If it was deleted or disabled, drop the waiting messages."""
        if endpoint is None or endpoint.state != "enabled":
            self.waiting.clear()
        else:
            self.endpoint, self.read_at = endpoint, read_at

    def note_result(self, *, delivered: bool, seconds: float) -> None:
        """Adapt the queue to the result of a call and its duration."""
        self.failures = 0 if delivered else self.failures + 1
        self.is_quick = seconds <= SLOW_SECONDS

    @property
    def held(self) -> int:
        return len(self.waiting) + len(self.in_flight)

    @property
    def events(self) -> int:
        """The number of events in its messages."""
        in_flight = [prepared for prepared, _ in self.in_flight.values()]
        return sum(len(prepared.message.claims) for prepared in (*self.waiting, *in_flight))

    @property
    def capacity(self) -> int:
        """How many messages it may hold."""
        return HELD_PER_QUEUE if self.max_calls == CALLS_PER_QUEUE else HELD_PER_SLOW_QUEUE

    @property
    def max_calls(self) -> int:
        """How many calls may be in flight: only one after `CALLS_PER_QUEUE` failures in a row."""
        if self.failures >= CALLS_PER_QUEUE:
            return 1
        oldest = next((begun for _, begun in self.in_flight.values()), None)
        hangs = oldest is not None and time.monotonic() - oldest > SLOW_SECONDS
        return CALLS_PER_QUEUE if self.is_quick and not hangs else CALLS_PER_SLOW_QUEUE

    def may_call(self, total: int) -> bool:
        """Whether it may start a call, with `total` calls of all queues in flight."""
        if not self.waiting or total >= MAX_CALLS:
            return False
        limit = self.max_calls if total < MAX_CALLS // 2 else min(self.max_calls, CALLS_PER_SLOW_QUEUE)
        return len(self.in_flight) < limit

    def is_fresh(self) -> bool:
        """Whether the endpoint was read recently enough to send messages to it."""
        return time.monotonic() - self.read_at < FRESH_SECONDS
