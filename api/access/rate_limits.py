"""Rate limits of API keys: one token bucket per key, in this api process."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

MINUTE = 60.0


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
        self._buckets: dict[int, _Bucket] = {}

    def take(self, key_id: int, per_minute: int) -> int:
        """Count a request of a key. Returns 0 if it is allowed, otherwise the seconds to wait, rounded up."""
        now = self._clock()
        bucket = self._buckets.setdefault(key_id, _Bucket(per_minute, now))
        bucket.tokens = min(per_minute, bucket.tokens + (now - bucket.at) * per_minute / MINUTE)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) * MINUTE / per_minute)
