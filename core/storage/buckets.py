"""Connections to S3 buckets. Credentials, region and endpoint come from the standard `AWS_*` variables."""

import datetime as dt
import os
from typing import TYPE_CHECKING

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import BackoffConfig

_CONNECT = dt.timedelta(seconds=5)
_BACKOFF: "BackoffConfig" = {
    "init_backoff": dt.timedelta(milliseconds=200),
    "max_backoff": dt.timedelta(seconds=2),
    "base": 2,
}


def parts_of_url(url: str) -> list[str] | None:
    """Bucket and key parts of an `s3://` URL (not percent-encoded); None for any other text."""
    scheme, _, rest = url.partition("://")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    return parts if scheme.lower() == "s3" and parts else None


def connect(bucket: str, *, timeout_seconds: float, retry_seconds: float) -> S3Store:
    """A connection to a bucket. Connects with the first request.

    Args:
        timeout_seconds: the most that one request takes.
        retry_seconds: how long failed requests are retried, up to three times. So no call takes longer than the sum.
    """
    # Passing client options makes obstore ignore all of those in the environment.
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    timeout = dt.timedelta(seconds=timeout_seconds)
    return S3Store(
        bucket,
        client_options={"connect_timeout": _CONNECT, "timeout": timeout, "allow_http": allow_http},
        retry_config={
            "max_retries": 3,
            "retry_timeout": dt.timedelta(seconds=retry_seconds),
            "backoff": _BACKOFF,
        },
        unsigned_payload=False,  # the server compares the SHA-256 of each request's body
    )


def reason(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(f"{error}".partition("Debug source:")[0].split())[:500]
