"""The io worker: `celery -A worker.io worker --queues io --pool threads`.

Its tasks plan re-scoring runs, make thumbnails and delete old data. Separate threads send webhooks and, if configured,
publish results over MQTT.
"""

import logging
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any
from uuid import UUID

from celery import signals

from core.database import create_pool
from core.logs import bound
from core.queue.broker import Task
from core.queue.notifications import Notifier
from core.settings import settings, settings_or_exit
from core.storage.stores import open_store
from core.storage.thumbnails import Message, ThumbnailSource
from core.tracing import traces
from worker.app import create_app
from worker.delivery.mqtt import Publisher
from worker.delivery.webhooks import Sender
from worker.heartbeat import Heartbeat
from worker.housekeeping import Housekeeping
from worker.rescoring.planning import Planner
from worker.schema import wait_until_migrated
from worker.thumbnails.maker import ThumbnailMaker

log = logging.getLogger(__name__)

POOL_SIZE = 4


class Process:
    """The objects that live as long as the process."""

    def __init__(self) -> None:
        self.engine = create_pool(settings(), size=POOL_SIZE, name="io", unit_seconds=settings().lease_seconds)
        self.notifier = Notifier(settings())
        self.stopping = threading.Event()
        self.planner = Planner(settings(), self.engine, self.notifier, self.stopping)
        store = open_store(settings())
        self.thumbnails = ThumbnailMaker(settings(), store, self.notifier)
        self.housekeeping = Housekeeping(settings(), self.engine, store, self.stopping)
        self.heartbeat = Heartbeat(settings(), "io")


class _Worker:
    """Holds the objects of the process and the threads that run next to its tasks."""

    publisher: Publisher | None = None

    @cached_property
    def process(self) -> Process:
        return Process()

    def on_init(self, **_: Any) -> None:
        """Start the sender here: Celery is ready only once Redis is up, which webhooks need not wait for."""
        traces.start_or_exit("linewatch-io")
        wait_until_migrated(settings())
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
        self.process.heartbeat.start()

    def on_ready(self, **_: Any) -> None:
        self.process.heartbeat.set_ready()

    def on_shutting_down(self, **_: Any) -> None:
        self.process.stopping.set()
        self.process.heartbeat.set_stopping()

    def on_shutdown(self, **_: Any) -> None:
        self.process.heartbeat.request_stop()
        self.sender.stop()
        if self.publisher is not None:
            self.publisher.stop()
        self.process.thumbnails.close()
        self.process.notifier.close()
        self.process.engine.dispose()
        self.process.heartbeat.stop()
        traces.stop()


def _publisher(process: Process) -> Publisher:
    try:
        return Publisher(settings(), process.engine)
    except ModuleNotFoundError as error:
        raise SystemExit(f"LINEWATCH_MQTT_URL needs {error.name}: pip install 'linewatch[mqtt]'") from None


app = create_app("linewatch-io", settings_or_exit())
worker = _Worker()
signals.worker_init.connect(worker.on_init, weak=False)
signals.worker_ready.connect(worker.on_ready, weak=False)
signals.worker_shutting_down.connect(worker.on_shutting_down, weak=False)
signals.worker_shutdown.connect(worker.on_shutdown, weak=False)


@app.task(name=Task.PLAN_RUN)
def plan_run(run_id: str) -> None:
    """Plan as much of a re-scoring run as there is room for slices."""
    with bound(rescore_run_id=run_id):
        worker.process.planner.plan(UUID(run_id))


@app.task(name=Task.THUMBNAILS)
def thumbnails(messages: Sequence[Message]) -> None:
    """Request the thumbnails of stored images."""
    worker.process.thumbnails.request([ThumbnailSource.from_message(message) for message in messages])


@app.task(name=Task.HOUSEKEEPING)
def housekeeping() -> None:
    """Create the partitions of the coming months; delete expired data and unfinished uploads."""
    worker.process.housekeeping.run()
