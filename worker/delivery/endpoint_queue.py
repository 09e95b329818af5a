"""What a sender holds, in queues: one for the events of each endpoint, and one for the callbacks that it signs.

A queue sends few requests at a time until its receiver has answered quickly, and again while it is slow or fails. So
slow receivers, however many, leave room for the others.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from core.delivery.endpoints import Endpoint
from core.delivery.sending import Message
from worker.delivery.http_sender import Connections

CALLS_OF_LANE = 8
"""Requests at a time to a receiver that answers quickly."""

CAREFUL_CALLS = 2
"""Requests at a time to one that does not, or of which it is not known."""

SLOW_SECONDS = 3.0
"""A receiver that takes longer than this to answer is slow."""

HELD_OF_ENDPOINT = 64
"""Messages of a quick endpoint that are claimed at a time: those in flight, and the next ones, ready to be sent."""

HELD_CAREFULLY = 2 * CAREFUL_CALLS

MAX_CALLS = 512
"""Requests at a time in all. The second half of them is for queues with fewer than `CAREFUL_CALLS`."""

FRESH_SECONDS = 1.0
"""A message is sent only by what was known of its endpoint so lately: whether it is enabled, its URL, its secrets."""


@dataclass(frozen=True)
class Prepared:
    """A message, its body, its endpoint as it was read with it, and when that was by this process's clock."""

    message: Message
    body: bytes = field(repr=False)
    receiver: Endpoint
    claimed_at: float


@dataclass
class EndpointQueue:
    """What this process has to do with one receiver."""

    connections: Connections
    receiver: Endpoint
    seen_at: float
    waiting: deque[Prepared] = field(default_factory=deque)
    calling: dict[asyncio.Task[None], tuple[Prepared, float]] = field(default_factory=dict)
    failures: int = 0
    quick: bool = False
    used_at: float = 0.0

    def add(self, one: Prepared) -> None:
        """Take a message, and what was read of the endpoint with it."""
        self.waiting.append(one)
        self.see(one.receiver, one.claimed_at)

    def see(self, receiver: Endpoint | None, at: float) -> None:
        """Note what the endpoint was at a moment: nothing waits for one that is not enabled."""
        if receiver is None or receiver.state != "enabled":
            self.waiting.clear()
        else:
            self.receiver, self.seen_at = receiver, at

    def note(self, *, delivered: bool, seconds: float) -> None:
        """Note what came of a call, and how long it took."""
        self.failures = 0 if delivered else self.failures + 1
        self.quick = seconds <= SLOW_SECONDS

    @property
    def held(self) -> int:
        return len(self.waiting) + len(self.calling)

    @property
    def events(self) -> int:
        """How many events its messages carry."""
        in_flight = [one for one, _ in self.calling.values()]
        return sum(len(one.message.claims) for one in (*self.waiting, *in_flight))

    @property
    def room(self) -> int:
        """How many messages may be held for it."""
        return HELD_OF_ENDPOINT if self.width == CALLS_OF_LANE else HELD_CAREFULLY

    @property
    def width(self) -> int:
        """How many requests may be in flight: one after as many failures in a row as would fill the queue."""
        if self.failures >= CALLS_OF_LANE:
            return 1
        oldest = next((begun for _, begun in self.calling.values()), None)
        hangs = oldest is not None and time.monotonic() - oldest > SLOW_SECONDS
        return CALLS_OF_LANE if self.quick and not hangs else CAREFUL_CALLS

    def may_begin(self, calls: int) -> bool:
        """Whether it may start a request, given how many are in flight overall."""
        if not self.waiting or calls >= MAX_CALLS:
            return False
        return len(self.calling) < (self.width if calls < MAX_CALLS // 2 else min(self.width, CAREFUL_CALLS))

    def is_fresh(self) -> bool:
        """Whether the endpoint was looked at lately enough to send by what was seen."""
        return time.monotonic() - self.seen_at < FRESH_SECONDS
