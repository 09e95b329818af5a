"""Publishing after the commit, from a thread of its own: the request path never waits for Redis.

A message that cannot be published is dropped: its rows are in Postgres, and the dispatcher finds them.
"""

import logging
import threading
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
from core.queue.broker import Task, celery_settings, score_arguments
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.settings import Settings

log = logging.getLogger(__name__)

_MOST_AT_ONCE = 1024


@dataclass(frozen=True)
class _Queued:
    """Inspections that were committed."""

    recipe_id: int
    priority: str
    id: UUID


@dataclass(frozen=True)
class _Call:
    """Any other task."""

    task: Task
    arguments: Sequence[Any]
    queue: str


@dataclass(frozen=True)
class _Hint:
    """Notify all processes of what became final in this one."""

    finished: Finished


_Item = _Queued | _Call | _Hint


class Publisher:
    """Sends messages in the order in which they were handed over, inspections as minibatches."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._engine = engine
        self._minibatch = settings.minibatch
        self._celery = Celery("linewatch-api", set_as_current=False)
        self._celery.conf.update(celery_settings(settings))
        self._notifier = Notifier(settings)
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._broker_is_down = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Publish what is left and end."""
        self._waiting.put(None)
        self._thread.join(timeout=5)
        self._celery.close()
        self._notifier.close()

    def queued(self, recipe_id: int, priority: str, inspection_id: UUID) -> None:
        """Hand over an inspection that was committed. Returns at once."""
        self._waiting.put(_Queued(recipe_id, priority, inspection_id))

    def call(self, task: Task, *arguments: Any, queue: str) -> None:
        """Hand over any other task. Returns at once."""
        self._waiting.put(_Call(task, arguments, queue))

    def notify(self, finished: Finished) -> None:
        """Hand over what became final. Returns at once."""
        self._waiting.put(_Hint(finished))

    def _run(self) -> None:
        while True:
            items, more = self._take()
            groups: dict[tuple[int, str], list[UUID]] = defaultdict(list)
            for item in items:
                if isinstance(item, _Call):
                    self._send(item.task, item.arguments, item.queue)
                elif isinstance(item, _Hint):
                    self._notifier.finished(item.finished)
                else:
                    groups[item.recipe_id, item.priority].append(item.id)
            for (recipe_id, priority), ids in groups.items():
                self._publish(recipe_id, priority, ids)
            if not more:
                return

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for one item, take all others that are there, and say whether there will be more."""
        items: list[_Item] = []
        item = self._waiting.get()
        while item is not None:
            items.append(item)
            if len(items) >= _MOST_AT_ONCE:
                return items, True
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return items, True
        return items, False

    def _publish(self, recipe_id: int, priority: str, ids: list[UUID]) -> None:
        for start in range(0, len(ids), self._minibatch):
            some = ids[start : start + self._minibatch]
            if not self._send(Task.SCORE, score_arguments(recipe_id, priority, some), priority):
                return
            try:
                with self._engine.begin() as connection:
                    publishing.mark_published(connection, some)
            except SQLAlchemyError as error:
                # The dispatcher will publish them a second time, which is harmless.
                log.warning("could not mark %d inspections as published: %s", len(some), error)

    def _send(self, task: Task, arguments: Sequence[Any], queue: str) -> bool:
        try:
            self._celery.send_task(task, args=list(arguments), queue=queue, ignore_result=True, retry=False)
        except (BrokerError, RedisError, OSError) as error:
            if not self._broker_is_down:
                log.warning("Redis cannot be reached, the dispatcher will publish later: %s", error)
            self._broker_is_down = True
            return False
        if self._broker_is_down:
            log.warning("Redis can be reached again")
        self._broker_is_down = False
        return True
