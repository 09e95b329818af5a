"""Publishes messages after the commit, in a separate thread: requests never wait for Redis.

A message that cannot be published is dropped. Its rows are in PostgreSQL, marked as unpublished, and the dispatcher
publishes them later.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from core.queue import publishing
from core.queue.broker import LIVE_QUEUE, Task, celery_settings, score_arguments
from core.queue.finishing import Finished
from core.queue.notifications import Notifier, connect
from core.settings import Settings
from core.tracing import traces

log = logging.getLogger(__name__)

HOLD_SECONDS = 0.05
"""How long inspections are held for the next message while other messages wait for a worker."""
_MAX_ITEMS = 1024


@dataclass(frozen=True)
class _QueuedInspection:
    """A committed inspection."""

    recipe_id: int
    priority: str
    id: UUID
    trace_context: str | None


@dataclass(frozen=True)
class _TaskCall:
    """Any other task."""

    task: Task
    arguments: Sequence[Any]
    queue: str


@dataclass(frozen=True)
class _Notification:
    """Notify all processes of what became final in this process."""

    finished: Finished


_Item = _QueuedInspection | _TaskCall | _Notification


class Publisher:
    """Sends messages in the order in which they were added; inspections as minibatches."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._engine = engine
        self._minibatch = settings.minibatch
        self._celery = Celery("linewatch-api", set_as_current=False)
        self._celery.conf.update(celery_settings(settings))
        self._notifier = Notifier(settings)
        self._redis = connect(settings)
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._broker_is_down = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Publish the remaining messages, for at most 5 s, and stop the thread."""
        self._waiting.put(None)
        self._thread.join(timeout=5)
        self._celery.close()
        self._notifier.close()
        self._redis.close()

    def queued(self, recipe_id: int, priority: str, inspection_id: UUID, trace_context: str | None = None) -> None:
        """Add a committed inspection, and where its trace goes on from. Does not block."""
        self._waiting.put(_QueuedInspection(recipe_id, priority, inspection_id, trace_context))

    def call(self, task: Task, *arguments: Any, queue: str) -> None:
        """Add any other task. Does not block."""
        self._waiting.put(_TaskCall(task, arguments, queue))

    def notify(self, finished: Finished) -> None:
        """Add a notification of what became final. Does not block."""
        self._waiting.put(_Notification(finished))

    def _run(self) -> None:
        more = True
        while more:
            items, more = self._take()
            try:
                self._send_all(items)
            except Exception:  # a bug; this thread must not end, and the dispatcher publishes what is missing
                log.exception("could not publish %d messages", len(items))

    def _send_all(self, items: Sequence[_Item]) -> None:
        """Send items until Redis does not answer: each try may take as long as its timeout, while more items come."""
        groups: dict[tuple[int, str], list[_QueuedInspection]] = defaultdict(list)
        for item in items:
            if isinstance(item, _QueuedInspection):
                groups[item.recipe_id, item.priority].append(item)
        unsent: list[_QueuedInspection] = []
        for (recipe_id, priority), queued in groups.items():
            unsent += queued if unsent else self._publish(recipe_id, priority, queued)
        if unsent:
            self._mark_unpublished([each.id for each in unsent])
            return
        for item in items:
            if isinstance(item, _TaskCall) and not self._send(item.task, item.arguments, item.queue):
                return
        finished = [item.finished for item in items if isinstance(item, _Notification)]
        if finished:
            self._notifier.finished(_joined(finished))

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for an item and take all others in the queue. The second value is False once the publisher stops.

        While the workers are busy, less than a minibatch is held for a moment: fewer messages cost them less.
        """
        items: list[_Item] = []
        hold_until: float | None = None
        item = self._waiting.get()
        while item is not None:
            items.append(item)
            if len(items) >= _MAX_ITEMS:
                return items, True
            try:
                item = self._waiting.get_nowait()
            except Empty:
                if not self._may_grow(items):
                    return items, True
                if hold_until is None:
                    hold_until = time.monotonic() + (HOLD_SECONDS if self._workers_are_busy() else 0.0)
                try:
                    item = self._waiting.get(timeout=max(hold_until - time.monotonic(), 0.0))
                except Empty:
                    return items, True
        return items, False

    def _may_grow(self, items: Sequence[_Item]) -> bool:
        return len(items) < self._minibatch and all(isinstance(item, _QueuedInspection) for item in items)

    def _workers_are_busy(self) -> bool:
        """Whether live messages wait for a worker."""
        try:
            return bool(self._redis.llen(LIVE_QUEUE))
        except (RedisError, OSError):
            return False

    def _publish(self, recipe_id: int, priority: str, queued: list[_QueuedInspection]) -> list[_QueuedInspection]:
        """Send inspections in minibatches. Return those that could not be sent."""
        for start in range(0, len(queued), self._minibatch):
            minibatch = queued[start : start + self._minibatch]
            begun = time.perf_counter()
            sent = self._send(
                Task.SCORE, score_arguments(recipe_id, priority, [each.id for each in minibatch]), priority
            )
            _trace(minibatch, begun, sent=sent)
            if not sent:
                return queued[start:]
        return []

    def _mark_unpublished(self, ids: list[UUID]) -> None:
        try:
            with self._engine.begin() as connection:
                publishing.mark_unpublished(connection, ids)
        except SQLAlchemyError as error:
            # They count as published and lost, which the dispatcher finds some seconds later.
            log.warning("could not mark %d inspections as unpublished: %s", len(ids), error)

    def _send(self, task: Task, arguments: Sequence[Any], queue: str) -> bool:
        try:
            self._celery.send_task(task, args=list(arguments), queue=queue, ignore_result=True, retry=False)
        except (BrokerError, RedisError, OSError) as error:
            if not self._broker_is_down:
                log.warning("cannot reach Redis; the dispatcher will publish later: %s", error)
            self._broker_is_down = True
            return False
        if self._broker_is_down:
            log.warning("Redis is reachable again")
        self._broker_is_down = False
        return True


def _joined(finished: Sequence[Finished]) -> Finished:
    return Finished(
        [each for one in finished for each in one.inspections],
        [each for one in finished for each in one.batches],
        [each for one in finished for each in one.runs],
    )


def _trace(minibatch: Sequence[_QueuedInspection], begun: float, *, sent: bool) -> None:
    """Record the sending of a message in the trace of each upload that it has images of."""
    queue = minibatch[0].priority
    for context in {each.trace_context for each in minibatch} - {None}:
        traces.record(
            f"enqueue {queue}",
            context,
            begun,
            time.perf_counter(),
            kind="producer",
            attributes={
                "messaging.system": "redis",
                "messaging.operation.name": "enqueue",
                "messaging.operation.type": "send",
                "messaging.destination.name": queue,
                "messaging.batch.message_count": len(minibatch),
            },
            error=None if sent else "broker_unavailable",
        )
