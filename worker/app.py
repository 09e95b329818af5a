"""The Celery app of the workers: its settings, its log, its metrics, and its readiness file."""

import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

from celery import Celery, signals

from core.queue.broker import celery_settings
from core.settings import Settings
from worker import metrics_server
from worker.logs import set_up_logging

END_SECONDS = 5.0
"""How long tasks may take to finish or release their work once their process ends for a fault."""


def create_app(name: str, settings: Settings) -> Celery:
    """A Celery app. The module that creates it defines its tasks."""
    # Celery warns root because pickled messages could run any code; ours are JSON only.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    app = Celery(name)
    app.conf.update(celery_settings(settings))
    # weak=False: the signals hold their receivers, which live as long as the process.
    signals.setup_logging.connect(lambda **_: set_up_logging(settings.log_format), weak=False)
    signals.worker_init.connect(lambda **_: metrics_server.start(settings), weak=False)
    readiness = Readiness(settings.ready_file)
    signals.worker_ready.connect(readiness.on_worker_ready, weak=False)
    signals.worker_shutting_down.connect(readiness.on_worker_shutting_down, weak=False)
    return app


def end_process() -> None:
    """End this process soon, with an error status: stop like after SIGTERM, but wait for no task that is stuck."""
    last_resort = threading.Timer(END_SECONDS, os._exit, [1])
    last_resort.daemon = True
    last_resort.start()
    os.kill(os.getpid(), signal.SIGTERM)


class Readiness:
    """A file that exists while the worker takes work; supervisors and probes look for it.

    Attributes:
        is_set: whether it was last created; true before the first time.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.is_set = True

    def set(self, ready: bool) -> None:
        """Create or remove the file."""
        self.is_set = ready
        if self._file is None:
            return
        if ready:
            self._file.touch()
        else:
            self._file.unlink(missing_ok=True)

    def on_worker_ready(self, **_: Any) -> None:
        self.set(True)

    def on_worker_shutting_down(self, **_: Any) -> None:
        self.set(False)
