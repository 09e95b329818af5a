"""`python -m api`: serve the api on the address of the settings."""

import asyncio
import logging
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn

from api.connections import allow_open_files, limited_connections
from api.services import Services
from core.logs import JsonFormatter
from core.settings import Settings, settings_or_exit
from core.tracing import traces

SHUTDOWN_SECONDS = 20
"""The time that requests in flight may take to end: longer than `client_timeout`, after which clients count as dead."""

TICK_SECONDS = 0.5
"""A signal is noticed after this time at most."""

KEEP_ALIVE_SECONDS = 125
"""How long an idle connection is kept: longer than load balancers keep theirs (nginx and AWS 60 s, Caddy 120 s).

If the api closes a connection first, an upload that is just being sent on it is cut off, and the client gets 502.
"""


class _Server(uvicorn.Server):
    """Drains before it stops.

    After the first SIGTERM or SIGINT, `/readyz` answers 503 and each response closes its connection, but all requests
    are served for `drain_seconds`. Then no connection is accepted any more, long polls and streams end with what they
    have, and requests in flight are finished. A second signal ends the drain at once; a third one cuts requests off.
    """

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._signals = 0
        self._drained_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Count the signal. uvicorn would raise it again at the end, so that the process would not exit with 0."""
        self._signals += 1
        self.should_exit = True
        self.force_exit = self._signals > 2

    async def main_loop(self) -> None:
        """As uvicorn's, which wakes five times as often. Its counter counts tenths of a second."""
        tenths = 0
        while not await self.on_tick(tenths):
            tenths += round(10 * TICK_SECONDS)
            await asyncio.sleep(TICK_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        if not await super().on_tick(counter):
            return False
        if not self._services.stopping.is_set():
            self._services.stopping.set()
            self._drained_at = time.monotonic() + self._services.settings.drain_seconds
        return self._signals > 1 or time.monotonic() >= self._drained_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.stopping.set()
        self._services.answer_waiting()
        await super().shutdown(sockets)


def main() -> int:
    """Serve until stopped; 2 if a setting is wrong, or would leave the api open to other machines without keys."""
    settings = settings_or_exit()
    if not settings.listens_on_loopback and not settings.auth_required:
        print(
            f"linewatch: LINEWATCH_AUTH=off is for loopback addresses; {settings.host} can be reached by others. "
            "Leave it on and create a key with `linewatch keys create`.",
            file=sys.stderr,
        )
        return 2
    traces.start_or_exit("linewatch-api")
    allow_open_files(settings.max_connections)
    from api.app import create_app

    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=limited_connections(
            most=settings.max_connections,
            header_seconds=settings.client_timeout,
            stopping=app.state.services.stopping,
        ),
        forwarded_allow_ips=settings.trusted_proxy_list,
        access_log=False,
        **_logging(settings),
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config, app.state.services)
    server.run()
    return 0 if server.started else 3


def _logging(settings: Settings) -> dict[str, Any]:
    """Set up the log, and return uvicorn's options for it."""
    if settings.log_format == "text":
        return {"log_level": "warning"}
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return {"log_level": "warning", "log_config": None}


if __name__ == "__main__":
    sys.exit(main())
