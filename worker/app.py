"""The Celery app of the workers: its settings, its log, and its readiness file."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from celery import Celery, signals

from core.queue.broker import celery_settings
from core.settings import Settings


def create_app(name: str, settings: Settings) -> Celery:
    """A Celery app. The module that creates it defines its tasks."""
    # Celery warns root because pickled messages could run any code; ours are JSON only.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    app = Celery(name)
    app.conf.update(celery_settings(settings))
    # weak=False: the signals hold their receivers, which live as long as the process.
    signals.setup_logging.connect(set_up_logging, weak=False)
    readiness = Readiness(settings.ready_file)
    signals.worker_ready.connect(readiness.on_worker_ready, weak=False)
    signals.worker_shutting_down.connect(readiness.on_worker_shutting_down, weak=False)
    return app


def set_up_logging(**_: Any) -> None:
    """Log one line for each record to standard error; the supervisor adds the time."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("celery", "kombu", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Readiness:
    """A file that exists while the worker takes work; supervisors and probes look for it."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def set(self, ready: bool) -> None:
        """Create or remove the file."""
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
