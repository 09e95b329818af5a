"""Authentication: API keys, sessions and their scopes. Without keys, only clients on this machine are served."""

import hmac
import re
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import request_bodies
from api.access.content_encodings import decompress, is_compressed
from api.access.credentials import Credentials
from api.access.origins import check_loopback_host, check_same_origin
from api.access.rate_limits import RateLimits
from api.responses.problems import response
from core.access import sessions
from core.access.keys import Key
from core.access.sessions import Session
from core.errors import Code, Refused
from core.settings import Settings

PROBES = frozenset({"/healthz", "/readyz"})
SESSION = "/v1/session"
NEED_NO_KEY = frozenset({"/health", SESSION})
PAGE = re.compile(r"/|/(live|inspections(/[^/]+)?|thresholds|review|train|models|rescoring|drift|system)|/static/.+")
"""The views of the page and its files. They hold no data of their own: the page gets it from the API."""
UPLOADS = re.compile(
    r"/v1/(inspections|batches|recipes/[^/]+/(model-versions|training-runs/[^/]+/images))|/predict|/heatmap"
)
"""Paths whose bodies are streamed to the store."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SUBMITTING = ("/v1/inspections", "/v1/batches", "/predict", "/heatmap")
ADMINISTRATION = ("/v1/api-keys", "/v1/audit-events")
"""Paths that need the scope `admin` for reading, too."""
READER_CHANGES = re.compile(r"POST /v1/results/acknowledge|DELETE /v1/results/consumers/[^/]+")
"""Changes that the scope `read` allows: a reader may acknowledge and delete its consumers of the feed."""
SESSION_COOKIE = "linewatch_session"
CSRF_HEADER = "X-CSRF-Token"

NO_KEY = "Send an API key: `Authorization: Bearer lw_…` (`linewatch keys create`)."
UNKNOWN_KEY = "Not a valid API key: it is unknown or was revoked. Create a new one (`linewatch keys create`)."
SESSION_ENDED = "Your session has ended. Sign in again."


class Identity(NamedTuple):
    """Who sent a request.

    Attributes:
        actor: as the audit log names it.
        is_admin: whether it has the scope `admin`.
        key: its API key, or that of its session; None without authentication.
        session: its session; None if the request itself has the key.
    """

    actor: str
    is_admin: bool
    key: Key | None = None
    session: Session | None = None


ANONYMOUS = Identity("anonymous", is_admin=False)
LOCAL = Identity("local", is_admin=True)


def scope_needed(method: str, path: str) -> str:
    """The scope of an API key that a request needs."""
    if path.startswith(ADMINISTRATION):
        return "admin"
    if method in SAFE_METHODS or READER_CHANGES.fullmatch(f"{method} {path}"):
        return "read"
    return "submit" if path.startswith(SUBMITTING) else "admin"


def needs_no_key(method: str, path: str) -> bool:
    """Whether a request is answered without authentication."""
    return path in PROBES or path in NEED_NO_KEY or (method in SAFE_METHODS and PAGE.fullmatch(path) is not None)


class Authentication:
    """ASGI middleware: authenticates requests before their body is read, and limits bodies."""

    def __init__(self, app: ASGIApp, settings: Settings, credentials: Credentials) -> None:
        self._app = app
        self._needs_key = settings.auth_required
        self._client_timeout = settings.client_timeout
        self._max_upload_bytes = settings.max_upload_bytes
        self._cors_origins = frozenset(settings.cors_origin_list)
        self._credentials = credentials
        self._rates = RateLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            identity = await self._identify(scope["method"], scope["path"], headers)
            compressed = is_compressed(headers)
        except Refused as refused:
            await response(refused)(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state.update(actor=identity.actor, is_admin=identity.is_admin, identity=identity)
        is_upload = UPLOADS.fullmatch(scope["path"]) is not None
        receive = request_bodies.limit(receive, is_upload=is_upload, seconds=self._client_timeout)
        if compressed:
            most = self._max_upload_bytes if is_upload else request_bodies.MAX_BYTES
            receive = decompress(receive, is_upload=is_upload, most=most)
        await self._app(scope, receive, send)

    async def _identify(self, method: str, path: str, headers: Headers) -> Identity:
        """Return who sent a request, if it may do what it asks for."""
        if path in PROBES:
            return ANONYMOUS
        if not self._needs_key:
            check_loopback_host(headers)
            if method not in SAFE_METHODS:
                check_same_origin(headers, self._cors_origins)
            return LOCAL
        if path == SESSION:
            return await self._identify_signed_in(method, headers)
        if needs_no_key(method, path):
            return ANONYMOUS
        key, session = await self._authenticate(method, headers)
        self._check_rate(key)
        self._credentials.note_use(key, session)
        needed = scope_needed(method, path)
        if not key.allows(needed):
            raise Refused(Code.FORBIDDEN, f"The API key {key.prefix!r} does not have the scope {needed!r}.")
        return Identity(key.actor, key.allows("admin"), key, session)

    async def _identify_signed_in(self, method: str, headers: Headers) -> Identity:
        """Return who reads or ends a session. That may be nobody; a sign-in has its key in the body."""
        if method not in SAFE_METHODS:
            check_same_origin(headers)
        if method == "POST":
            return ANONYMOUS
        try:
            key, session = await self._authenticate(method, headers)
        except Refused as refused:
            if refused.code is Code.UNAUTHENTICATED:
                return ANONYMOUS
            raise
        return Identity(key.actor, key.allows("admin"), key, session)

    async def _authenticate(self, method: str, headers: Headers) -> tuple[Key, Session | None]:
        """Return the API key of a request, and its session unless it has the key itself, which takes precedence."""
        scheme, _, text = headers.get("authorization", "").partition(" ")
        is_bearer, text = scheme.lower() == "bearer", text.strip()
        if not is_bearer and (token := session_token(headers)):
            session = await self._find_session(token, method, headers)
            return session.key, session
        key = await self._credentials.find_key(text) if is_bearer else None
        if key is None:
            raise Refused(Code.UNAUTHENTICATED, UNKNOWN_KEY if is_bearer and text else NO_KEY)
        key.check_not_expired()
        return key, None

    async def _find_session(self, token: str, method: str, headers: Headers) -> Session:
        """Return the session with this token.

        Changes need its CSRF token, because a browser attaches the cookie to the requests of any page.
        """
        session = await self._credentials.find_session(token)
        if session is None:
            raise Refused(Code.UNAUTHENTICATED, SESSION_ENDED)
        if method not in SAFE_METHODS:
            check_same_origin(headers)
            if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), sessions.csrf_token(token).encode()):
                raise Refused(
                    Code.CSRF_TOKEN_INVALID,
                    f"Send the `csrf_token` of `GET {SESSION}` in the header {CSRF_HEADER}. "
                    "If you signed in again elsewhere, load the page again.",
                )
        return session

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


def session_token(headers: Headers) -> str:
    """Return the token in the session cookie of a request; empty if it has none."""
    return cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE, "")
