"""Responses without a body: to HEAD on any GET route, and 304 to a client that has the current content already.

Routes know neither. They answer a GET, and what they send after the headers is dropped.
"""

from email.utils import parsedate_to_datetime

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.responses.etags import is_current

_SUCCESS = (200, 206)
_IN_304 = frozenset({b"cache-control", b"content-location", b"date", b"etag", b"expires", b"last-modified", b"vary"})
"""The headers that a 304 repeats (RFC 9110, section 15.4.5)."""


class BodilessResponses:
    """ASGI middleware that answers HEAD, `If-None-Match` and `If-Modified-Since`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        is_head, headers = scope["method"] == "HEAD", Headers(scope=scope)
        if is_head or "if-none-match" in headers or "if-modified-since" in headers:
            scope, send = {**scope, "method": "GET"}, _sending(headers, send, is_head=is_head)
        await self._app(scope, receive, send)


def _sending(request: Headers, send: Send, *, is_head: bool) -> Send:
    """Return what sends a response, or only its headers.

    The response is completed with its headers. The server then reports the client as disconnected, which ends streams.
    """
    is_bodiless = is_head

    async def send_start_or_all(message: Message) -> None:
        nonlocal is_bodiless
        if message["type"] != "http.response.start":
            if not is_bodiless:
                await send(message)
            return
        if message["status"] in _SUCCESS and _has_current(request, Headers(raw=message["headers"])):
            is_bodiless = True
            headers = [(name, value) for name, value in message["headers"] if name.lower() in _IN_304]
            message = {**message, "status": 304, "headers": headers}
        await send(message)
        if is_bodiless:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_start_or_all


def _has_current(request: Headers, response: Headers) -> bool:
    """Return whether a client has the content of a response: by its entity tag or, without one, by its date."""
    tags = request.getlist("if-none-match")
    if tags:
        etag = response.get("etag")
        return etag is not None and is_current(", ".join(tags), etag)
    try:
        modified = parsedate_to_datetime(response.get("last-modified", ""))
        return modified <= parsedate_to_datetime(request.get("if-modified-since", ""))
    except (ValueError, TypeError):  # TypeError: one has a time zone, the other has none
        return False
