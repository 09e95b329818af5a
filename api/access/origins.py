"""Protection from other web pages, which a browser lets send requests to this api."""

from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from core.errors import Code, Refused
from core.settings import LOOPBACK_HOSTS

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SENT_HEADERS = (
    "Authorization",
    "Idempotency-Key",
    "If-None-Match",
    "If-Modified-Since",
    "Last-Event-ID",
    "Range",
    "traceparent",
    "tracestate",
)
READ_HEADERS = (
    "Allow",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Headers of responses that pages of other origins may read."""


def allow_origins(app: FastAPI, origins: Collection[str]) -> None:
    """Let pages of these origins use the API with an API key of their own. They never get the session cookie."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=SENT_HEADERS,
        expose_headers=READ_HEADERS,
        allow_private_network=True,
    )


def check_loopback_host(headers: Headers) -> None:
    """Check that a request without keys is for a loopback name: with DNS rebinding, any page could send it.

    Raises:
        Refused: FOREIGN_ORIGIN.
    """
    if _host_name(headers.get("host", "")) not in LOOPBACK_HOSTS:
        raise Refused(Code.FOREIGN_ORIGIN, "Without API keys, use localhost, 127.0.0.1 or [::1].")


def check_same_origin(headers: Headers, allowed: Collection[str] = ()) -> None:
    """Check that a request with an unsafe method is not from a page of another origin, except those allowed.

    Browsers send `Sec-Fetch-Site` over HTTPS and to loopback addresses, and no page can change it. Otherwise the origin
    is compared with the host; a proxy must pass on the `Host` header.

    Raises:
        Refused: FOREIGN_ORIGIN.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site == "same-origin" or origin in allowed:
        return
    is_foreign = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if is_foreign or site in ("cross-site", "same-site"):
        raise Refused(Code.FOREIGN_ORIGIN, "Requests from another web page may not change anything.")


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
