"""`python -m api`: serve the api on the address of the settings."""

import logging
import socket
import sys
from typing import Any

import uvicorn

from api.connections import allow_open_files, limited_connections
from api.services import Services
from core.logs import JsonFormatter
from core.settings import Settings, settings_or_exit
from core.tracing import traces

SHUTDOWN_SECONDS = 5
"""The time that requests have to end after a stop was requested."""


class _Server(uvicorn.Server):
    """Answers long polls before it stops: they could outlast the shutdown, and would be cut off."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
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
        http=limited_connections(most=settings.max_connections, header_seconds=settings.client_timeout),
        forwarded_allow_ips=settings.trusted_proxy_list,
        access_log=False,
        **_logging(settings),
        backlog=2048,
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
