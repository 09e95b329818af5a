"""Authentication: bearer keys and their scopes. Without keys, only clients on this machine are served."""

import asyncio
import logging
import re
import time
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import request_bodies
from api.access.rate_limits import RateLimits
from api.responses.problems import database_unavailable, response
from core.access import keys
from core.access.keys import Key
from core.database import UNUSABLE
from core.errors import Code, Refused
from core.settings import LOOPBACK_HOSTS, Settings

log = logging.getLogger(__name__)

PROBES = frozenset({"/healthz", "/readyz"})
NEED_NO_KEY = frozenset({"/health", "/"})
UPLOADS = re.compile(
    r"/v1/(inspections|batches|recipes/[^/]+/(model-versions|training-runs/[^/]+/images))|/predict|/heatmap"
)
"""Paths whose bodies are streamed to the store."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SUBMITTING = ("/v1/inspections", "/v1/batches", "/predict", "/heatmap")
READER_CHANGES = re.compile(r"POST /v1/results/acknowledge|DELETE /v1/results/consumers/[^/]+")
"""Changes that the scope `read` allows: a reader may acknowledge and delete its consumers of the feed."""
KEY_SECONDS = 5.0
"""How long a key is cached. A revoked key is accepted for at most this long."""
USE_SECONDS = 60.0
"""The minimum time between two updates of the time a key was last used."""

NO_KEY = "Send an API key: `Authorization: Bearer lw_…` (`linewatch keys create`)."
UNKNOWN_KEY = "Not a valid API key: it is unknown or was revoked. Create a new one (`linewatch keys create`)."


def scope_needed(method: str, path: str) -> str:
    """The scope of an API key that a request needs."""
    if method in SAFE_METHODS or READER_CHANGES.fullmatch(f"{method} {path}"):
        return "read"
    return "submit" if path.startswith(SUBMITTING) else "admin"


class Authentication:
    """ASGI middleware: authenticates requests before their body is read, and limits bodies."""

    def __init__(self, app: ASGIApp, settings: Settings, engine: Engine, threads: int) -> None:
        """Look keys up in `threads` separate threads, so that slow requests do not delay authentication."""
        self._app = app
        self._threads = anyio.CapacityLimiter(threads)
        self._needs_key = settings.auth_required
        self._client_timeout = settings.client_timeout
        self._engine = engine
        self._keys: dict[bytes, tuple[float, Key]] = {}  # by digest: the keys themselves are neither kept nor compared
        self._rates = RateLimits()
        self._use_updated_at: dict[int, float] = {}
        self._use_updates: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            actor, is_admin = await self._identify(scope)
            scope.setdefault("state", {}).update(actor=actor, is_admin=is_admin)
        except Refused as refused:
            await response(refused)(scope, receive, send)
            return
        is_upload = UPLOADS.fullmatch(scope["path"]) is not None
        await self._app(scope, request_bodies.limit(receive, is_upload=is_upload, seconds=self._client_timeout), send)

    async def _identify(self, scope: Scope) -> tuple[str, bool]:
        """The actor of the request, for the audit log, and whether it has the scope `admin`."""
        headers = Headers(scope=scope)
        if scope["path"] in PROBES:
            return "anonymous", False
        if not self._needs_key:
            _check_host_and_origin(scope["method"], headers)
            return "local", True
        if scope["path"] in NEED_NO_KEY:
            return "anonymous", False
        scheme, _, text = headers.get("authorization", "").partition(" ")
        is_bearer, text = scheme.lower() == "bearer", text.strip()
        key = await self._find(text) if is_bearer else None
        if key is None:
            raise Refused(Code.UNAUTHENTICATED, UNKNOWN_KEY if is_bearer and text else NO_KEY)
        key.check_not_expired()
        self._check_rate(key)
        self._update_last_use(key)
        needed = scope_needed(scope["method"], scope["path"])
        if not key.allows(needed):
            raise Refused(Code.FORBIDDEN, f"The API key {key.prefix!r} does not have the scope {needed!r}.")
        return f"key:{key.prefix}", key.allows("admin")

    async def _find(self, text: str) -> Key | None:
        now, digest = time.monotonic(), keys.digest(text)
        if digest in self._keys and self._keys[digest][0] > now:
            return self._keys[digest][1]
        try:
            key = await anyio.to_thread.run_sync(self._look_up, text, limiter=self._threads)
        except UNUSABLE as error:
            raise database_unavailable() from error
        self._keys = {cached: entry for cached, entry in self._keys.items() if entry[0] > now}
        if key is not None:
            self._keys[digest] = (now + KEY_SECONDS, key)
        return key

    def _check_rate(self, key: Key) -> None:
        if key.requests_per_minute is None:
            return
        seconds = self._rates.take(key.id, key.requests_per_minute)
        if seconds:
            raise Refused(
                Code.RATE_LIMITED,
                f"The API key {key.prefix!r} is limited to {key.requests_per_minute} requests a minute. Retry later.",
                retry_after=seconds,
            )

    def _update_last_use(self, key: Key) -> None:
        """Update when a key was last used, in the background: the request neither waits for it nor fails with it."""
        now = time.monotonic()
        if self._use_updated_at.get(key.id, -USE_SECONDS) + USE_SECONDS > now:
            return
        self._use_updated_at[key.id] = now
        update = asyncio.create_task(self._write_last_use(key))
        self._use_updates.add(update)
        update.add_done_callback(self._use_updates.discard)

    async def _write_last_use(self, key: Key) -> None:
        def write() -> None:
            with self._engine.begin() as connection:
                keys.note_use(connection, key.id)

        try:
            await asyncio.to_thread(write)
        except SQLAlchemyError as error:
            log.warning("could not update when the API key %s was last used: %s", key.prefix, error)

    def _look_up(self, text: str) -> Key | None:
        with self._engine.begin() as connection:
            return keys.find(connection, text)


def _check_host_and_origin(method: str, headers: Headers) -> None:
    """Block requests from other web pages: without keys, a page in a browser on this machine could send them.

    The host is checked because of DNS rebinding, the origin because of cross-site requests.
    """
    host = headers.get("host", "")
    if _host_name(host) not in LOOPBACK_HOSTS:
        raise Refused(Code.FOREIGN_ORIGIN, "Without API keys, use localhost, 127.0.0.1 or [::1].")
    if method in SAFE_METHODS:
        return
    origin = headers.get("origin")
    if (origin is not None and origin.partition("://")[2] != host) or headers.get("sec-fetch-site") == "cross-site":
        raise Refused(Code.FOREIGN_ORIGIN, "Requests from another web page may not change anything.")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
