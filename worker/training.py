"""The training worker: `celery -A worker.training worker --queues training --pool threads --concurrency 1`.

It trains one run at a time, in a child process with the lowest priority. A message only says that a run is queued.
"""

import logging
import threading
from functools import cached_property
from typing import Any

from celery import signals

from core.database import create_pool
from core.queue.broker import BULK_QUEUE, Task
from core.queue.notifications import Notifier
from core.settings import settings, settings_or_exit
from core.storage.stores import open_store
from worker.app import create_app
from worker.heartbeat import Heartbeat, process_name
from worker.outages import BROKER_DOWN
from worker.schema import wait_until_migrated
from worker.training_runs.trainer import Trainer

log = logging.getLogger(__name__)

POOL_SIZE = 2


class Process:
    """The objects that live as long as the process."""

    def __init__(self) -> None:
        self.engine = create_pool(settings(), size=POOL_SIZE, name="training", unit_seconds=settings().lease_seconds)
        self.notifier = Notifier(settings())
        self.stopping = threading.Event()
        self.trainer = Trainer(
            settings(),
            self.engine,
            open_store(settings()),
            self.notifier,
            worker=process_name(),
            stopping=self.stopping,
            check_version=_request_check,
        )
        self.heartbeat = Heartbeat(settings(), "training")


class _Worker:
    """Holds the objects of the process."""

    @cached_property
    def process(self) -> Process:
        return Process()

    def on_init(self, **_: Any) -> None:
        wait_until_migrated(settings())
        self.process.heartbeat.start()

    def on_ready(self, **_: Any) -> None:
        self.process.heartbeat.set_ready()

    def on_shutting_down(self, **_: Any) -> None:
        self.process.stopping.set()
        self.process.heartbeat.set_stopping()

    def on_shutdown(self, **_: Any) -> None:
        self.process.heartbeat.request_stop()
        self.process.notifier.close()
        self.process.engine.dispose()
        self.process.heartbeat.stop()


app = create_app("linewatch-training", settings_or_exit())
worker = _Worker()
signals.worker_init.connect(worker.on_init, weak=False)
signals.worker_ready.connect(worker.on_ready, weak=False)
signals.worker_shutting_down.connect(worker.on_shutting_down, weak=False)
signals.worker_shutdown.connect(worker.on_shutdown, weak=False)


def _request_check(version_id: int) -> None:
    try:
        app.send_task(Task.CHECK_MODEL, args=[version_id], queue=BULK_QUEUE, ignore_result=True, retry=False)
    except BROKER_DOWN as error:
        log.warning("could not request the check of the new version, the dispatcher will: %s", error)


# A training takes longer than Redis keeps a message that is not acknowledged. The lease recovers it, not the message.
@app.task(name=Task.TRAIN, acks_late=False)
def train() -> None:
    """Train the queued runs."""
    worker.process.trainer.train_queued()
