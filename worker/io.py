"""The io worker: `celery -A worker.io worker --queues io --pool threads`.

Its tasks plan re-scoring runs and delete old data. Separate threads send webhooks and, if configured, publish results
over MQTT.
"""

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
"""An upload that began this long ago belongs to a process that has ended."""

POOL_SIZE = 4

DELETED_AT_ONCE = 2000
PIECES = 100
"""Rows are deleted in pieces, each in its own transaction, up to a limit; the rest is deleted next time."""


class Process:
    """The objects that live as long as the process."""

    def __init__(self) -> None:
        self.engine = create_pool(settings(), size=POOL_SIZE, name="io")
        self.store = Store(settings().store_url)
        self.notifier = Notifier(settings())
        self.stopping = threading.Event()
        self.planner = Planner(settings(), self.engine, self.notifier, self.stopping)


class _Worker:
    """Holds the objects of the process and the threads that run next to its tasks."""

    publisher: Publisher | None = None

    @cached_property
    def process(self) -> Process:
        return Process()

    def on_init(self, **_: Any) -> None:
        """Start the sender here: Celery is ready only once Redis is up, which webhooks need not wait for."""
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
    """Plan as much of a re-scoring run as there is room for slices."""
    worker.process.planner.plan(UUID(run_id))


@app.task(name=Task.HOUSEKEEPING)
def housekeeping() -> None:
    """Create the partitions of the coming months; delete expired data and unfinished uploads."""
    process = worker.process
    with process.engine.begin() as connection:
        made = partitions.ensure(connection)
    if made:
        log.info("created %s", ", ".join(made))
    removed = process.store.sweep(older_than_seconds=STALE_UPLOAD_SECONDS)
    if removed:
        log.info("deleted %d unfinished uploads", removed)
    _delete_old("entries of the feed", partial(feed.expire, days=settings().feed_days))
    _delete_old("finished deliveries", deliveries.delete_old)
    _delete_old("idempotency keys", idempotency.delete_old_keys)


def _delete_old(what: str, delete_piece: Callable[..., int]) -> None:
    """Delete old rows piece by piece; `delete_piece` deletes up to `at_most` and returns how many."""
    total = 0
    for _ in range(PIECES):
        with worker.process.engine.begin() as connection:
            deleted = delete_piece(connection, at_most=DELETED_AT_ONCE)
        total += deleted
        if deleted < DELETED_AT_ONCE:
            break
    if total:
        log.info("deleted %d %s", total, what)
