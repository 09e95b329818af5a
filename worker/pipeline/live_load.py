"""Tracks live work, so that bulk work makes way for it."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import RedisError

from core.queue.broker import LIVE_QUEUES


class LiveLoad:
    """The live work of this process, and the live work that waits for any process. Thread-safe."""

    def __init__(self, queues: redis.Redis) -> None:
        self._queues = queues
        self._active = 0
        self._served_at = -math.inf
        self._changed = threading.Condition()

    @contextmanager
    def served(self) -> Iterator[None]:
        """Mark live work as being scored, for a `with` block."""
        with self._changed:
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._served_at = time.monotonic()
                self._changed.notify_all()

    def quiet_seconds(self) -> float:
        """How many seconds this process has had no live work; 0 while it has some."""
        with self._changed:
            return 0.0 if self._active else time.monotonic() - self._served_at

    def waits(self) -> bool:
        """Whether live work waits for a worker. False while Redis is down, because then none arrives."""
        try:
            return any(self._queues.llen(queue) for queue in LIVE_QUEUES)
        except (RedisError, OSError):
            return False

    def is_quiet(self, *, within: float) -> bool:
        """Wait up to `within` seconds until this process has no live work; returns whether it has none."""
        with self._changed:
            return self._changed.wait_for(lambda: self._active == 0, timeout=within)
