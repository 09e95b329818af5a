"""Client connections: a maximum number, limits for request headers, detection of dead clients, and an end in order.

uvicorn has no such limits: a client that sends nothing, that sends headers without end, or that disappears without
closing its connection, would occupy it for ever.
"""

import json
import logging
import resource
import socket
import threading
from asyncio import BaseTransport, TimerHandle, Transport
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from api.responses import problems
from core.errors import Code, Refused

log = logging.getLogger(__name__)

KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A dead client is detected after 30 s without traffic."""
UNACKNOWLEDGED_MS = 30_000
"""A client that acknowledges no data for this long while a response is sent is dead."""

MAX_HEADER_BYTES = 64 * 1024
"""The limit for the headers of a request, and for the trailers of a chunked body: the parser keeps them in memory."""

TOO_LARGE = (
    f"The address and the headers of a request must not be larger than {MAX_HEADER_BYTES} bytes together. "
    "Send long fields in a form."
)
MALFORMED = "This is not an HTTP/1.1 request. Check the request line and the headers, and encode the address."
TLS = "This port takes HTTP, not HTTPS. Use http://, or a proxy that takes HTTPS."
_TLS_HANDSHAKE = b"\x16\x03"

LAST_REQUEST_SECONDS = 1.0
"""The time that a new connection, or a request that has begun, has to complete its headers once the process stops."""

FILES_PER_CONNECTION = 2
"""The socket, and the file in the store that receives its image."""
OTHER_FILES = 200
"""Connections to PostgreSQL and Redis, files that are sent, the log, and some to spare."""


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files, if necessary, to what so many connections need.

    The usual soft limit is 1024. Beyond it, the api could neither accept connections nor store images.
    """
    needed = FILES_PER_CONNECTION * connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning("%d connections need %d open files, but only %d are allowed", connections, needed, hard)
        needed = hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def limited_connections(*, most: int, header_seconds: float, stopping: threading.Event) -> type[HttpToolsProtocol]:
    """A protocol for `uvicorn.run(http=...)`.

    Args:
        most: the maximum number of connections; further ones are refused.
        header_seconds: the time from the start of a connection or request to the end of its headers, and for data that
            arrives after a response without completing a request.
        stopping: once it is set, each response closes its connection.
    """
    attributes = {"most": most, "header_seconds": header_seconds, "stopping": stopping}
    return type("LimitedConnection", (_LimitedConnection,), attributes)


class _LimitedConnection(HttpToolsProtocol):
    most: int
    header_seconds: float
    stopping: threading.Event
    _header_timer: TimerHandle | None = None
    _header_bytes = 0
    _malformed = MALFORMED

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

    def data_received(self, data: bytes) -> None:
        self._malformed = TLS if data.startswith(_TLS_HANDSHAKE) else MALFORMED
        self._header_bytes += len(data)  # set to 0 when the parser gets through the headers, or to body data
        super().data_received(data)
        if self.transport.is_closing():
            return
        has_responded = self.cycle is not None and self.cycle.response_complete
        if self._header_bytes > MAX_HEADER_BYTES:
            if self.cycle is None or has_responded:
                self.send_400_response(TOO_LARGE)
            else:
                self.transport.close()  # these are trailers
        elif has_responded and self._header_timer is None:
            # uvicorn has stopped its keep-alive timer. This is the rest of a refused body, or the start of a request.
            self._start_header_timer()

    def send_400_response(self, msg: str) -> None:
        """Respond to what the parser cannot read; uvicorn would send plain text."""
        if msg != TOO_LARGE:
            msg = TOO_LARGE if self._header_bytes > MAX_HEADER_BYTES else self._malformed
        content = json.dumps(problems.body(Refused(Code.MALFORMED_REQUEST, msg))).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", content]))
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._start_header_timer()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # fails if the address is too long
        self._header_bytes = 0
        self._cancel_header_timer()
        if self.stopping.is_set() and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._header_bytes = 0
        self._cancel_header_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and self._header_timer is None:
            self._start_header_timer()  # the rest of a refused body may come, or never

    def shutdown(self) -> None:
        """Close the connection after its last response: at once if it is idle, but not if a request has begun."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if self._header_timer is None or not is_idle:
            super().shutdown()
        else:
            self._cancel_header_timer()
            self._start_header_timer(LAST_REQUEST_SECONDS)

    def _start_header_timer(self, seconds: float | None = None) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds if seconds is None else seconds, self._close)

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
