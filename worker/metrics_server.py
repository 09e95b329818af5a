"""Serves the metrics of this process over HTTP, if a port is set: in a thread of its own, without authentication."""

import logging
import threading
import time

from core.metrics import serve
from core.settings import Settings

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""While the port is in use, for example by a process that this one replaces, it is tried again after this time."""


def start(settings: Settings) -> None:
    """Serve the metrics at every path of the address of the settings, until the process ends."""
    if settings.metrics_port:
        arguments = (settings.metrics_host, settings.metrics_port)
        threading.Thread(target=_serve, args=arguments, name="metrics", daemon=True).start()


def _serve(host: str, port: int) -> None:
    has_failed = False
    while True:
        try:
            serve(host, port)
        except OSError as error:
            if not has_failed:
                log.warning("cannot serve metrics on %s port %d, trying again: %s", host, port, error)
            has_failed = True
            time.sleep(RETRY_SECONDS)
        else:
            return
