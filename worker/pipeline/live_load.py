"""Live load: what a process knows of live work, so that bulk work yields to it."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import RedisError

from core.queue.broker import LIVE_QUEUES


class LiveLoad:
    """Live work of this process, and what waits for any. Thread-safe."""

    def __init__(self, queues: redis.Redis) -> None:
        self._queues = queues
        self._in_hand = 0
        self._served_at = -math.inf
        self._changed = threading.Condition()

    @contextmanager
    def served(self) -> Iterator[None]:
        """While live work is in hand."""
        with self._changed:
            self._in_hand += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_hand -= 1
                self._served_at = time.monotonic()
                self._changed.notify_all()

    def quiet_seconds(self) -> float:
        """How long this process has had no live work; 0 while it has some."""
        with self._changed:
            return 0.0 if self._in_hand else time.monotonic() - self._served_at

    def waits(self) -> bool:
        """Whether live work waits for a worker. While Redis is away none arrives, either."""
        try:
            return any(self._queues.llen(queue) for queue in LIVE_QUEUES)
        except (RedisError, OSError):
            return False

    def is_quiet(self, *, within: float) -> bool:
        """Whether there is no live work, now or within that many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_hand == 0, timeout=within)
