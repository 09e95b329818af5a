"""The heartbeat of a process: a thread of its own that writes every ten seconds what the process is doing.

It has its own connection with short timeouts, so it takes nothing from the work of the process. While the database
cannot be used, heartbeats are left out; nothing else happens.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from core.database import create_pool
from core.settings import Settings
from core.system import workers
from core.system.documents import WorkerKind
from core.system.workers import HEARTBEAT_SECONDS

log = logging.getLogger(__name__)

_UNIT_SECONDS = 4.0
_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class Activity:
    """What a process is doing; see `core.system.documents.Worker`."""

    is_ready: bool = True
    device: str | None = None
    model_version_ids: Sequence[int] = ()
    minibatch_fill: float | None = None
    images_per_second: float | None = None


def process_name() -> str:
    """Return the name of this process: its host and process id."""
    return f"{socket.gethostname()}/{os.getpid()}"


class Heartbeat:
    """Writes heartbeats from `start` to `stop`. Its process is `starting` until `set_ready` is called."""

    def __init__(
        self,
        settings: Settings,
        kind: WorkerKind,
        activity: Callable[[], Activity] = Activity,
        *,
        every: float = HEARTBEAT_SECONDS,
    ) -> None:
        """`activity` is called before each heartbeat, in the thread of the heartbeat; it must not block."""
        self._kind = kind
        self._activity = activity
        self._every = every
        self._name = process_name()
        self._began = time.monotonic()
        self._phase = "starting"
        self._engine = create_pool(settings, size=1, name="heartbeat", unit_seconds=_UNIT_SECONDS)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Write the first heartbeat soon, and go on in a thread."""
        self._thread.start()

    def set_ready(self) -> None:
        """Note that the process takes work now."""
        self._phase = "ready"
        self._wake.set()

    def set_stopping(self) -> None:
        """Note that the process takes no more work."""
        self._phase = "stopping"
        self._wake.set()

    def request_stop(self) -> None:
        """Begin to remove the entry of the process, without waiting for that."""
        self._stopping.set()
        self._wake.set()

    def stop(self) -> None:
        """Remove the entry of the process, if the database answers soon."""
        self.request_stop()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while True:
            self._wake.clear()
            if self._stopping.is_set():
                break
            self._write(self._beat)
            self._wake.wait(self._every)
        self._write(lambda connection: workers.remove(connection, self._name))
        self._engine.dispose()

    def _beat(self, connection: Connection) -> None:
        activity = self._activity()
        state = "unready" if self._phase == "ready" and not activity.is_ready else self._phase
        workers.beat(
            connection,
            workers.Heartbeat(
                self._name,
                self._kind,
                state,
                version("linewatch"),
                time.monotonic() - self._began,
                activity.device,
                activity.model_version_ids,
                activity.minibatch_fill,
                activity.images_per_second,
            ),
        )

    def _write(self, write: Callable[[Connection], None]) -> None:
        try:
            with self._engine.begin() as connection:
                write(connection)
            self._failing = False
        except SQLAlchemyError as error:
            if not self._failing:
                log.warning("heartbeats cannot be written for now: %s", error)
            self._failing = True
