"""Send one webhook over HTTP, with limits on time and memory, and return a typed outcome."""

import asyncio
import contextlib
import datetime as dt
import email.utils
import logging
import math
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from queue import SimpleQueue

import httpx

from core.delivery.allowed_targets import AllowList, Target, TargetRefused, TargetUnresolved
from core.delivery.deliveries import Outcome
from core.delivery.sending import ReceiverAnswer

log = logging.getLogger(__name__)

TRY_SECONDS = 15.0
"""The time limit of a whole try: resolving the name, connecting, sending and reading the answer."""

MAX_ANSWER_BYTES = 64 * 1024
KEPT_CHARACTERS = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class SignedRequest:
    """A signed request, ready to be sent."""

    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class Resolvers:
    """Threads that resolve host names.

    The system's resolver cannot be interrupted, and may take much longer than a try. An executor would wait for it when
    the process ends; these threads are never joined.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._actions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._work, name="webhooks-resolver", daemon=True).start()

    def submit(self, action: Callable[[], None]) -> None:
        """Run an action as soon as a thread is free. It must not raise."""
        self._actions.put(action)

    def close(self) -> None:
        """Let each thread end once it is free."""
        for _ in range(self._number):
            self._actions.put(None)

    def _work(self) -> None:
        while (action := self._actions.get()) is not None:
            action()


class Connections:
    """The open connections to one endpoint, separate for each host name.

    The certificate is checked against the name only when a connection is opened. So a connection must never be used for
    another name, even one with the same address.
    """

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        self._clients: dict[tuple[str, str, int], httpx.AsyncClient] = {}
        self._last_reached: dict[str, str] = {}

    def ordered_addresses(self, target: Target) -> list[str]:
        """The addresses of a target; the one that was reached last comes first."""
        last_reached = self._last_reached.get(target.host)
        return sorted(target.addresses, key=lambda address: address != last_reached)

    def note_reached(self, target: Target, address: str) -> None:
        """Note that a request was sent to this address of a target."""
        self._last_reached[target.host] = address

    def client_for(self, target: Target) -> httpx.AsyncClient:
        """The client for this scheme, host and port."""
        key = target.scheme, target.host, target.port
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # accept no cookies
                verify=self._trust,
                trust_env=False,
                follow_redirects=False,
                timeout=TRY_SECONDS,
                limits=_UNLIMITED,
            )
        return self._clients[key]

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()


_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=5.0)


def trusted_certificates(ca_file: Path | None) -> ssl.SSLContext:
    """The certificate authorities of the system, of certifi and of the configured file.

    Raises:
        OSError: the file cannot be read, or contains no certificates (ssl.SSLError).
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def send(
    request: SignedRequest, allowed: AllowList, resolvers: Resolvers, connections: Connections
) -> ReceiverAnswer:
    """Try once to send a request. Takes at most `TRY_SECONDS` and raises only CancelledError.

    Each try resolves and checks the name again, and connects to an address that was checked.
    """
    at, begun = dt.datetime.now(dt.UTC), time.monotonic()

    def answer(outcome: Outcome, text: str = "", status: int | None = None, retry_after: float = 0.0) -> ReceiverAnswer:
        return ReceiverAnswer(outcome, at, (time.monotonic() - begun) * 1000, status, printable(text), retry_after)

    try:
        async with asyncio.timeout(TRY_SECONDS) as limit:
            target = await _resolve(resolvers, allowed, request.url)
            response = await _send_to(target, request, connections, until=limit.when())
        text = await _read_beginning(response, until=limit.when())
        outcome = _outcome(response.status_code)
        return answer(outcome, text, response.status_code, parse_retry_after(response.headers.get("Retry-After")))
    except TargetUnresolved as error:
        return answer(Outcome.UNREACHABLE, error.detail)
    except TargetRefused as error:
        return answer(Outcome.TARGET_REFUSED, error.detail)
    except (TimeoutError, httpx.TimeoutException):
        return answer(Outcome.TIMED_OUT, f"no answer within {TRY_SECONDS:g} seconds")
    except (httpx.ProtocolError, httpx.InvalidURL) as error:
        disconnected = "disconnected" in str(error)
        return answer(Outcome.UNREACHABLE if disconnected else Outcome.BAD_ANSWER, str(error))
    except (httpx.HTTPError, OSError) as error:
        tls_error = _tls_error(error)
        return answer(Outcome.TLS_FAILED if tls_error else Outcome.UNREACHABLE, str(tls_error or error))


async def _resolve(resolvers: Resolvers, allowed: AllowList, url: str) -> Target:
    loop = asyncio.get_running_loop()
    resolved: asyncio.Future[Target] = loop.create_future()

    def set_result(target: Target | None, error: Exception | None) -> None:
        if resolved.done():  # the try is over
            return
        if target is not None:
            resolved.set_result(target)
        elif error is not None:
            resolved.set_exception(error)

    def resolve() -> None:
        target, failure = None, None
        try:
            target = allowed.resolve(url)
        except Exception as error:  # noqa: BLE001 - passed on to the awaiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            loop.call_soon_threadsafe(set_result, target, failure)

    resolvers.submit(resolve)
    return await resolved


async def _send_to(
    target: Target, request: SignedRequest, connections: Connections, *, until: float | None
) -> httpx.Response:
    """Send to the first address that accepts a connection. The addresses share the remaining time equally."""
    client, addresses = connections.client_for(target), connections.ordered_addresses(target)
    while True:
        address = addresses.pop(0)
        left = TRY_SECONDS if until is None else until - asyncio.get_running_loop().time()
        connect_seconds = max(left, 0.0) / (1 + len(addresses))
        try:
            response = await client.send(
                _build_request(client, request, target, address, connect_seconds=connect_seconds), stream=True
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
            if not addresses or _tls_error(error):
                raise
        else:
            connections.note_reached(target, address)
            return response


def _build_request(
    client: httpx.AsyncClient, request: SignedRequest, target: Target, address: str, *, connect_seconds: float
) -> httpx.Request:
    url = httpx.URL(request.url)
    return client.build_request(
        "POST",
        url.copy_with(host=address),
        content=request.body,
        headers={**request.headers, "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(TRY_SECONDS, connect=connect_seconds),
        extensions={"sni_hostname": target.host},
    )


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.DELIVERED
    return Outcome.GONE if status == httpx.codes.GONE else Outcome.REFUSED_STATUS


async def _read_beginning(response: httpx.Response, *, until: float | None) -> str:
    """Read the beginning of an answer, as it was sent.

    The status decides on success, so an answer that breaks off or does not end in time is no error: this returns the
    part that was received.
    """
    received = bytearray()
    try:
        async with asyncio.timeout_at(until):
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) >= MAX_ANSWER_BYTES:
                    break
    except (TimeoutError, httpx.HTTPError) as error:
        log.debug("an answer ended early: %s", type(error).__name__)
    finally:
        await response.aclose()
    return received[: 4 * KEPT_CHARACTERS].decode("utf-8", "replace")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The TLS error among an exception and its causes, if any."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None


def printable(text: str) -> str:
    """The first `KEPT_CHARACTERS` of an answer, without control characters, which could move a terminal's cursor."""
    return _CONTROL.sub(" ", text[:KEPT_CHARACTERS]).strip()


def parse_retry_after(value: str | None) -> float:
    """The seconds of a `Retry-After` header, which is a number or a date (RFC 9110, 10.2.3); 0 if it is invalid."""
    if not value:
        return 0.0
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    moment = email.utils.parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds()
