"""Tracks requests: each gets an id for the log and its response, and is counted."""

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import count_request
from core.logs import set_ids

REQUEST_ID = "X-Request-ID"
_HEADER = REQUEST_ID.lower().encode()
_VALID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestTracking:
    """ASGI middleware. A request keeps the `X-Request-ID` that its client or a proxy gave it, if that is short."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = _request_id(scope)
        set_ids(lambda: _ids(request_id, scope))
        status = 500  # unless a response is sent: an exception gets that answer further out

        async def note_response(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, note_response)
        finally:
            route = getattr(scope.get("route"), "path_format", None)
            count_request(scope["method"], route, status, time.perf_counter() - begun)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _VALID.fullmatch(value):
            requested: str = value.decode()
            return requested
    return secrets.token_hex(8)


def _ids(request_id: str, scope: Scope) -> Mapping[str, Any]:
    """The id of a request, and those in its path, once it has a route."""
    path = scope.get("path_params", {})
    return {"request_id": request_id, **{name: value for name, value in path.items() if name.endswith("_id")}}
