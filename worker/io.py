"""The io worker's tasks, which need no network: `celery -A worker.io worker --queues io --pool threads`."""

import logging
from functools import cached_property
from typing import Any

from celery import signals

from core import feed, idempotency, partitions
from core.database import create_pool
from core.queues import Task
from core.settings import settings
from core.store import Store
from worker.app import create_app

log = logging.getLogger(__name__)

STALE_UPLOAD_SECONDS = 24 * 3600
"""An upload that was begun this long ago was given up by a process that is no more."""

POOL_SIZE = 4
_KEYS_AT_ONCE = 2000


class Process:
    """What lives as long as the process."""

    def __init__(self) -> None:
        self.engine = create_pool(settings(), size=POOL_SIZE, name="io")
        self.store = Store(settings().store_url)


class _Worker:
    @cached_property
    def process(self) -> Process:
        return Process()

    def on_shutdown(self, **_: Any) -> None:
        self.process.engine.dispose()


app = create_app("linewatch-io", settings())
worker = _Worker()
signals.worker_shutdown.connect(worker.on_shutdown, weak=False)


@app.task(name=Task.HOUSEKEEPING)
def housekeeping() -> None:
    """Make the coming months' partitions; remove what has had its time, and uploads that never came to their end."""
    process = worker.process
    with process.engine.begin() as connection:
        made = partitions.ensure(connection)
    if made:
        log.info("made %s", ", ".join(made))
    while expired := _expire_feed(process):
        log.info("removed the oldest %d entries of the feed", expired)
    while forgotten := _forget_keys(process):
        log.info("removed the oldest %d idempotency keys", forgotten)
    removed = process.store.sweep(older_than_seconds=STALE_UPLOAD_SECONDS)
    if removed:
        log.info("removed %d uploads that were never finished", removed)


def _expire_feed(process: Process) -> int:
    with process.engine.begin() as connection:
        return feed.expire(connection, days=settings().feed_days)


def _forget_keys(process: Process) -> int:
    with process.engine.begin() as connection:
        return idempotency.remove_old(connection, at_most=_KEYS_AT_ONCE)
