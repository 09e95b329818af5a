"""Send one webhook over HTTP, with every resource bounded, and return a typed outcome."""

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
from collections.abc import Callable, Iterator, Mapping
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
"""How long a whole try may take: looking the name up, connecting, sending and reading the answer."""

MAX_ANSWER_BYTES = 64 * 1024
KEPT_CHARACTERS = 500
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True)
class SignedRequest:
    """A signed request that is ready to be sent."""

    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


class Resolvers:
    """Threads in which names are looked up. Unlike an executor's they are never joined: the system's resolver may take
    far longer than an attempt, and than a process that has to stop."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for _ in range(number):
            threading.Thread(target=self._work, name="webhooks-resolver", daemon=True).start()

    def do(self, action: Callable[[], None]) -> None:
        """Do something, which must raise nothing, as soon as a thread is free."""
        self._asked.put(action)

    def close(self) -> None:
        """Let each thread end once it is free."""
        for _ in range(self._number):
            self._asked.put(None)

    def _work(self) -> None:
        while (action := self._asked.get()) is not None:
            action()


class Connections:
    """Connections of one endpoint that are kept open, apart for each host name: a certificate is checked for the name
    only when a connection is made, so none may ever be used for another name, whatever address they share."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        self._clients: dict[tuple[str, str, int], httpx.AsyncClient] = {}
        self._reached: dict[str, str] = {}

    def order(self, target: Target) -> list[str]:
        """The addresses of a target; the one that was reached last comes first."""
        reached = self._reached.get(target.host)
        return sorted(target.addresses, key=lambda one: one != reached)

    def reached(self, target: Target, address: str) -> None:
        """Note that this address of a target took a request."""
        self._reached[target.host] = address

    def to(self, target: Target) -> httpx.AsyncClient:
        """A client for this host and port only."""
        key = target.scheme, target.host, target.port
        if key not in self._clients:
            self._clients[key] = httpx.AsyncClient(
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # a receiver leaves nothing here
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
    """The trusted certificate authorities: the system's, certifi's, and those of the configured file.

    Raises OSError (ssl.SSLError among them) if the file cannot be read.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


async def send(
    one: SignedRequest, allowed: AllowList, resolvers: Resolvers, connections: Connections
) -> ReceiverAnswer:
    """Try once. Whatever the receiver does, this ends within `TRY_SECONDS` and raises nothing but a cancellation.

    The name is resolved and judged again for each try, and the connection goes to the address that was judged.
    """
    at, begun = dt.datetime.now(dt.UTC), time.monotonic()

    def answer(outcome: Outcome, text: str = "", status: int | None = None, retry_after: float = 0.0) -> ReceiverAnswer:
        return ReceiverAnswer(outcome, at, (time.monotonic() - begun) * 1000, status, printable(text), retry_after)

    try:
        async with asyncio.timeout(TRY_SECONDS) as limit:
            target = await _resolved(resolvers, allowed, one.url)
            response = await _sent(one, target, connections, until=limit.when())
        text = await _beginning(response, until=limit.when())
        outcome = _outcome(response.status_code)
        return answer(outcome, text, response.status_code, retry_after(response.headers.get("Retry-After")))
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
        refused = [cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)]
        return answer(Outcome.TLS_FAILED if refused else Outcome.UNREACHABLE, str(refused[0] if refused else error))


async def _resolved(resolvers: Resolvers, allowed: AllowList, url: str) -> Target:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Target] = loop.create_future()

    def tell(target: Target | None, error: Exception | None) -> None:
        if found.done():  # the try is over
            return
        if target is not None:
            found.set_result(target)
        elif error is not None:
            found.set_exception(error)

    def resolve() -> None:
        target, failure = None, None
        try:
            target = allowed.resolve(url)
        except Exception as error:  # noqa: BLE001 - passed on to the awaiting task
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            loop.call_soon_threadsafe(tell, target, failure)

    resolvers.do(resolve)
    return await found


async def _sent(one: SignedRequest, target: Target, connections: Connections, *, until: float | None) -> httpx.Response:
    """The answer of the first address that can be connected to; each has an equal share of the time that is left."""
    client, addresses = connections.to(target), connections.order(target)
    while True:
        address = addresses.pop(0)
        left = TRY_SECONDS if until is None else until - asyncio.get_running_loop().time()
        try:
            request = _request(client, one, target, address, connect_seconds=max(left, 0.0) / (1 + len(addresses)))
            response = await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent
            if not addresses or any(isinstance(cause, ssl.SSLError) for cause in _causes(error)):
                raise
        else:
            connections.reached(target, address)
            return response


def _request(
    client: httpx.AsyncClient, one: SignedRequest, target: Target, address: str, *, connect_seconds: float
) -> httpx.Request:
    url = httpx.URL(one.url)
    return client.build_request(
        "POST",
        url.copy_with(host=address),
        content=one.body,
        headers={**one.headers, "Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(TRY_SECONDS, connect=connect_seconds),
        extensions={"sni_hostname": target.host},
    )


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome.DELIVERED
    return Outcome.GONE if status == httpx.codes.GONE else Outcome.REFUSED_STATUS


async def _beginning(response: httpx.Response, *, until: float | None) -> str:
    """The beginning of an answer, as it was sent. What counts is the status, so of an answer that breaks off, or does
    not end in time, this is what has come."""
    received = bytearray()
    try:
        async with asyncio.timeout_at(until):
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) >= MAX_ANSWER_BYTES:
                    break
    except (TimeoutError, httpx.HTTPError) as error:
        log.debug("an answer broke off: %s", type(error).__name__)
    finally:
        await response.aclose()
    return received[: 4 * KEPT_CHARACTERS].decode("utf-8", "replace")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def printable(text: str) -> str:
    """What is kept of an answer: its first characters, and none that could move a terminal's cursor."""
    return _CONTROL.sub(" ", text[:KEPT_CHARACTERS]).strip()


def retry_after(value: str | None) -> float:
    """The header `Retry-After`, a number of seconds or a date (RFC 9110, 10.2.3), in seconds; 0 if it says nothing."""
    if not value:
        return 0.0
    try:
        seconds = float(value) if value.strip().isdigit() else _until(value)
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _until(date: str) -> float:
    moment = email.utils.parsedate_to_datetime(date)
    return (moment.replace(tzinfo=moment.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds()
