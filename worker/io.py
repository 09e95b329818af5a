"""The io worker: `celery -A worker.io worker --queues io --pool threads`. Its tasks need no network; beside them, in
threads of their own, it sends webhooks and, where that is wished, publishes results over MQTT."""

import logging
import threading
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from celery import signals

from core import partitions
from core.database import create_pool
from core.delivery import deliveries
from core.feed import feed
from core.intake import idempotency
from core.queue.broker import Task
from core.queue.notifications import Notifier
from core.settings import settings, settings_or_exit
from core.storage.image_store import Store
from worker.app import create_app
from worker.delivery.mqtt import Publisher
from worker.delivery.webhooks import Sender
from worker.rescoring.planning import Planner

log = logging.getLogger(__name__)

STALE_UPLOAD_SECONDS = 24 * 3600
"""An upload that was begun this long ago was given up by a process that is no more."""

POOL_SIZE = 4

REMOVED_AT_ONCE = 2000
PIECES = 100
"""Rows are removed in batches, each in its own transaction, up to a limit; the rest is removed next time."""


class Process:
    """What lives as long as the process."""

    def __init__(self) -> None:
        self.engine = create_pool(settings(), size=POOL_SIZE, name="io")
        self.store = Store(settings().store_url)
        self.notifier = Notifier(settings())
        self.stopping = threading.Event()
        self.planner = Planner(settings(), self.engine, self.notifier, self.stopping)


class _Worker:
    """Holds the process's things, and what runs beside its tasks."""

    publisher: Publisher | None = None

    @cached_property
    def process(self) -> Process:
        return Process()

    def on_init(self, **_: Any) -> None:
        """Begin to send. Celery is ready only once Redis is there; webhooks need not wait for it."""
        try:
            self.sender = Sender(settings())
        except OSError as error:
            raise SystemExit(
                f"LINEWATCH_WEBHOOK_CA_FILE={settings().webhook_ca_file} cannot be read: {error}"
            ) from None
        self.sender.start()
        if settings().mqtt_url is not None:
            self.publisher = _publisher(self.process)
            self.publisher.start()

    def on_shutting_down(self, **_: Any) -> None:
        self.process.stopping.set()

    def on_shutdown(self, **_: Any) -> None:
        self.sender.stop()
        if self.publisher is not None:
            self.publisher.stop()
        self.process.notifier.close()
        self.process.engine.dispose()


def _publisher(process: Process) -> Publisher:
    try:
        return Publisher(settings(), process.engine)
    except ModuleNotFoundError as error:
        raise SystemExit(f"LINEWATCH_MQTT_URL needs {error.name}: pip install 'linewatch[mqtt]'") from None


app = create_app("linewatch-io", settings_or_exit())
worker = _Worker()
signals.worker_init.connect(worker.on_init, weak=False)
signals.worker_shutting_down.connect(worker.on_shutting_down, weak=False)
signals.worker_shutdown.connect(worker.on_shutdown, weak=False)


@app.task(name=Task.PLAN_RUN)
def plan_run(run_id: str) -> None:
    """Plan a re-scoring run as far as there is room for its slices."""
    worker.process.planner.plan(UUID(run_id))


@app.task(name=Task.HOUSEKEEPING)
def housekeeping() -> None:
    """Make the coming months' partitions; remove what has had its time, and uploads that never came to their end."""
    process = worker.process
    with process.engine.begin() as connection:
        made = partitions.ensure(connection)
    if made:
        log.info("made %s", ", ".join(made))
    removed = process.store.sweep(older_than_seconds=STALE_UPLOAD_SECONDS)
    if removed:
        log.info("removed %d uploads that were never finished", removed)
    _remove("entries of the feed", partial(feed.expire, days=settings().feed_days))
    _remove("deliveries that were finished long ago", deliveries.delete_old)
    _remove("idempotency keys", idempotency.delete_old_keys)


def _remove(what: str, piece: Callable[..., int]) -> None:
    """Remove what has had its time, piece by piece; `piece` removes up to `at_most` and says how many it did."""
    total = 0
    for _ in range(PIECES):
        with worker.process.engine.begin() as connection:
            removed = piece(connection, at_most=REMOVED_AT_ONCE)
        total += removed
        if removed < REMOVED_AT_ONCE:
            break
    if total:
        log.info("removed %d %s", total, what)
