"""Tracks requests: each gets an id for the log and its response, is counted and, if tracing is on, traced."""

import re
import secrets
import time
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi.telemetry import TelemetryConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import count_request
from core.logs import set_ids
from core.tracing import traces

REQUEST_ID = "X-Request-ID"
_HEADER = REQUEST_ID.lower().encode()
_UNTRACED = ("/healthz", "/readyz", "/metrics")
_HIDDEN = "callback_url"
_VALID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def telemetry(root_path: str) -> TelemetryConfig | None:
    """Return FastAPI's configuration for spans of requests; None while tracing is off.

    Probes and scrapes are not traced: there would be more of them than of anything else.
    """
    provider = traces.provider()
    if provider is None:
        return None

    def is_untraced(scope: MutableMapping[str, Any]) -> bool:
        path: str = scope["path"].removeprefix(root_path)
        return path in _UNTRACED or path.startswith("/static/")

    return {
        "tracer_provider": provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": is_untraced,
    }


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
        if traces.is_on():
            traces.describe_current({"linewatch.request.id": request_id, **_without_secrets(scope)})
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
    """The ids of a request and of its trace, and those in its path, once it has a route."""
    path = scope.get("path_params", {})
    ids = {"request_id": request_id, "trace_id": traces.current_trace_id()}
    return {**ids, **{name: value for name, value in path.items() if name.endswith("_id")}}


def _without_secrets(scope: Scope) -> dict[str, str]:
    """The query for the trace, if it has a callback: its URL may contain a password or a token."""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    if not any(name == _HIDDEN for name, _ in pairs):
        return {}
    return {"url.query": urlencode([(name, "REDACTED" if name == _HIDDEN else value) for name, value in pairs])}
