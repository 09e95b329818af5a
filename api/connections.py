"""Client connections: a maximum number, a time limit for request headers, and detection of dead clients.

uvicorn has no such limits: a client that sends nothing, or that disappears without closing its connection, would
occupy it for ever.
"""

import logging
import socket
from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A dead client is detected after 30 s without traffic."""
UNACKNOWLEDGED_MS = 30_000
"""A client that acknowledges no data for this long while an answer is sent is dead."""


def limited_connections(*, most: int, header_seconds: float) -> type[HttpToolsProtocol]:
    """A protocol for `uvicorn.run(http=...)`.

    Args:
        most: the maximum number of connections; further ones are refused.
        header_seconds: the time from the start of a connection or request to the end of its headers.
    """
    return type("LimitedConnection", (_LimitedConnection,), {"most": most, "header_seconds": header_seconds})


class _LimitedConnection(HttpToolsProtocol):
    most: int
    header_seconds: float
    _header_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        if len(self.connections) >= self.most:
            log.warning("refused a connection: %d are open, the maximum", self.most)
            cast(Transport, transport).abort()
            return
        super().connection_made(cast(Transport, transport))
        _detect_dead_client(transport)
        self._start_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_header_timer()
        if self.transport is not None:
            super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._start_header_timer()

    def on_headers_complete(self) -> None:
        self._cancel_header_timer()
        super().on_headers_complete()

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._close)

    def _cancel_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close(self) -> None:
        self._header_timer = None
        self.transport.close()


def _detect_dead_client(transport: BaseTransport) -> None:
    connection: Any = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {**KEEPALIVE, "TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS}
    for name, value in options.items():
        if hasattr(socket, name):  # macOS does not have all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
