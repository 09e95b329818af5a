"""Rate limits: one token bucket for each API key, and for each address that signs in, in this api process."""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MINUTE = 60.0
MAX_BUCKETS = 10_000
"""If so many clients are counted, all counts start again: the limits need not hold against so many addresses."""


@dataclass
class _Bucket:
    """The tokens at a time; each request takes one."""

    tokens: float
    at: float


class RateLimits:
    """A bucket holds the requests of one minute and refills evenly.

    Each api process counts separately.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[Hashable, _Bucket] = {}

    def take(self, client: Hashable, per_minute: int) -> int:
        """Count a request of a client. Returns 0 if it is allowed, otherwise the seconds to wait, rounded up."""
        now = self._clock()
        if client not in self._buckets and len(self._buckets) >= MAX_BUCKETS:
            self._buckets.clear()
        bucket = self._buckets.setdefault(client, _Bucket(per_minute, now))
        bucket.tokens = min(per_minute, bucket.tokens + (now - bucket.at) * per_minute / MINUTE)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) * MINUTE / per_minute)

    def give_back(self, client: Hashable) -> None:
        """Do not count the last request of a client."""
        if client in self._buckets:
            self._buckets[client].tokens += 1
