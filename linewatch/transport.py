"""Requests to a running system: when they are tried again, and what their failures are called."""

import datetime as dt
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from linewatch.errors import BadAddress, LinewatchError, Refused, Unreachable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds; doubles with each try
RECONNECTS = 5  # tries after the first, of a GET whose connection failed: 3 s in all
KEEPALIVE_SECONDS = 2.0
"""Idle connections are given up before the server (5 s) does so: a POST on one that just closed cannot be repeated."""

_WAIT_AND_TRY_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

Body = Mapping[str, Any]
"""Arguments of `httpx.Client.build_request` that make a body."""


class Transport:
    """Sends requests; safe to use from several threads.

    429 and 503 say that nothing was accepted: any request is tried again after `Retry-After`, while `patience` lasts.
    A connection that fails is tried again for GETs only: a POST may have been accepted before it broke.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        *,
        timeout: float,
        patience: float,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        """`inner` replaces the network; seconds are meant by `timeout` (for each answer) and `patience` (in all).

        Raises:
            BadAddress: the address is none.
        """
        self._base = _base(url)
        self.url = str(self._base).rstrip("/")
        self._timeout = timeout
        self._patience = patience
        self._http = httpx.Client(
            base_url=self._base,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            trust_env=self._base.host not in _LOOPBACK,  # a proxy could not reach this machine's loopback
            transport=inner,
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, wait: float = 0.0, **params: Any) -> Any:
        """The JSON of a GET; `wait` seconds are asked of the server and allowed for."""
        if wait:
            params["wait"] = round(wait, 3)
        return self._json(self._send("GET", path, params=params, allowed=wait))

    def post(self, path: str, body: Callable[[], Body] = dict) -> Any:
        """The JSON that a POST answers; `body` is called for each try."""
        return self._json(self._send("POST", path, body=body))

    def content(self, path: str) -> bytes:
        """The bytes of a GET."""
        return self._send("GET", path).content

    def download(self, path: str, to: Path) -> None:
        """Write what a GET answers to a file, without holding it in memory; tried once."""
        with self._naming_failures("GET"), self._http.stream("GET", path, timeout=self._timeout) as answer:
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            with to.open("wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)

    def status(self, path: str) -> int:
        """The status of a GET, whatever it is; tried once."""
        with self._naming_failures("GET"):
            return self._http.get(path, timeout=self._timeout).status_code

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Callable[[], Body] = dict,
        allowed: float = 0.0,
    ) -> httpx.Response:
        give_up = time.monotonic() + self._patience
        attempt = 0
        while True:
            try:
                with self._naming_failures(method):
                    answer = self._http.request(method, path, params=params, timeout=self._timeout + allowed, **body())
            except Unreachable:
                if method != "GET" or attempt >= RECONNECTS:
                    raise
                pause = _pause(attempt)
            else:
                if answer.is_success:
                    return answer
                pause = max(_pause(attempt), _retry_after(answer))
                if answer.status_code not in _WAIT_AND_TRY_AGAIN or time.monotonic() + pause > give_up:
                    raise _refusal(answer)
            time.sleep(pause)
            attempt += 1

    @contextmanager
    def _naming_failures(self, method: str) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unreachable(
                f"{self.url} cannot be reached ({error}): start the system with `linewatch up`, or name its address"
            ) from error
        except httpx.TransportError as error:
            doubt = "" if method == "GET" else "; what was sent may have been accepted: look before you send it again"
            why = str(error) or type(error).__name__
            raise Unreachable(f"{self.url} gave no answer ({why}){doubt}") from error

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise LinewatchError(
                f"{self.url} answers, but not as Linewatch does: does something else listen there?"
            ) from error


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadAddress(f"{url!r} is not an address ({error}): it looks like http://127.0.0.1:8000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise BadAddress(f"{url!r} is not an address: it looks like http://127.0.0.1:8000")
    return base


def _pause(attempt: int) -> float:
    """Seconds before the next try, spread so that clients which failed together do not return together."""
    return min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the answer asks for, as a number or a date; 0 where it asks for none."""
    text = answer.headers.get("Retry-After", "0")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - dt.datetime.now(dt.UTC)).total_seconds())
    except (TypeError, ValueError):  # neither: our own pause has to do
        return 0.0


def _refusal(answer: httpx.Response) -> Refused:
    status = answer.status_code
    try:
        problem = answer.json()
        return Refused(str(problem["code"]), status, str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        return Refused(
            f"http_{status}", status, f"{answer.request.url} answers {status}, but not as Linewatch does: is it one?"
        )
