"""How fast each API key may ask: a token bucket for each, in this api process."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

MINUTE = 60.0


@dataclass
class _Bucket:
    """Requests that may be made at once, as of a moment."""

    tokens: float
    at: float


class RateLimits:
    """A key that was idle may make the requests of one minute at once; then they come back evenly.

    With several api processes each counts for itself.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}

    def take(self, key_id: int, per_minute: int) -> int:
        """Count one request of a key; 0 when it may go, else the whole seconds after which the next one may."""
        now = self._clock()
        bucket = self._buckets.setdefault(key_id, _Bucket(per_minute, now))
        bucket.tokens = min(per_minute, bucket.tokens + (now - bucket.at) * per_minute / MINUTE)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0
        return math.ceil((1 - bucket.tokens) * MINUTE / per_minute)
