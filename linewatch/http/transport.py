"""Sends requests to a running system: retries, and names for failures."""

import datetime as dt
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from linewatch.errors import BadAddress, BadKey, CursorLost, GateNotMet, LinewatchError, Refused, Unreachable
from linewatch.http.executors import Executor
from linewatch.http.request_bodies import Body

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds; doubles with each try
RECONNECTS = 5  # tries after the first, of a repeatable request whose connection failed: 3 s in all
KEEPALIVE_SECONDS = 2.0
"""Close idle connections before the server does (5 s), because some requests cannot be repeated on a new connection."""

_WAIT_AND_TRY_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_OF_A_PROXY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_CURSOR_LOST = ("cursor_epoch", "cursor_expired")
_GATE_NOT_MET = "gate_not_met"
_IN_FLIGHT = "idempotency_in_flight"
_IDEMPOTENT = ("GET", "PATCH", "DELETE")  # the PATCH requests of this api set values, so they are idempotent
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

OnWait = Callable[[LinewatchError | None, float], object]
"""Called before each pause with the reason of the retry and the seconds since the first try, the pause included; and
with None and the seconds it took until a response came."""


def _no_body() -> AbstractContextManager[Body]:
    return nullcontext({})


@dataclass(frozen=True)
class Request:
    """One request, which may be sent more than once.

    Attributes:
        body: opened for each try and closed after it.
        wait: seconds that the server is asked to wait; the timeout is extended by them.
        key: its `Idempotency-Key`, which makes it safe to repeat.
        harmless_twice: whether a POST without a key may be repeated.
        takes_link: whether a redirect to another system is a response; otherwise it is refused.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Callable[[], AbstractContextManager[Body]] = _no_body
    wait: float = 0.0
    key: str | None = None
    harmless_twice: bool = False
    takes_link: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again if its outcome is not known."""
        return self.method in _IDEMPOTENT or self.key is not None or self.harmless_twice


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """The arguments of an httpx client for a system's address.

    Raises:
        BadAddress: the address is not a URL of HTTP.
        BadKey: the key has characters that a key cannot have.
    """
    base = _base(url)
    if api_key and not all("!" <= character <= "~" for character in api_key):
        raise BadKey("this is not an API key: a key looks like lw_…, in ASCII and without blanks")
    return {
        "base_url": base,
        "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
        "limits": httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        "trust_env": base.host not in _LOOPBACK,  # a proxy cannot reach the loopback of this machine
    }


class Transport:
    """Sends requests with an executor.

    429 and 503 mean that nothing was accepted, 409 `idempotency_in_flight` that the same upload is being accepted right
    now: every request is retried after `Retry-After`, until `patience` is over. After a connection error only a
    repeatable request is retried: any other may have been accepted before the connection broke.
    """

    def __init__(self, executor: Executor, *, timeout: float, patience: float, on_wait: OnWait | None = None) -> None:
        """`timeout` is in seconds for each response, `patience` in seconds for all retries."""
        self.executor = executor
        self.url = str(executor.http.base_url).rstrip("/")
        self._timeout = timeout
        self._patience = patience
        self._on_wait = on_wait or (lambda *_: None)

    def tireless(self) -> "Transport":
        """A transport that retries repeatable requests without end while the system is down."""
        return Transport(self.executor, timeout=self._timeout, patience=math.inf, on_wait=self._on_wait)

    async def json(self, call: Request) -> Any:
        """The JSON of the response; None if it has no content."""
        response = await self.send(call)
        if response.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self._not_linewatch() from error

    async def content(self, path: str) -> bytes:
        """The body of a GET."""
        return (await self.send(Request("GET", path))).content

    async def link(self, call: Request) -> str | None:
        """The link to another system that a request gets as its response; None if it gets the content itself."""
        location: str | None = (await self.send(replace(call, takes_link=True))).headers.get("Location")
        return location

    async def linked_content(self, call: Request) -> bytes:
        """The body of the response, or of what it links to.

        Raises:
            Unreachable: nothing responds at the link.
            LinewatchError: the other system refuses it.
        """
        response = await self.send(replace(call, takes_link=True))
        if response.next_request is None:
            return response.content
        request = response.next_request
        request.headers.pop("Authorization", None)  # for this system alone, wherever the link leads
        place = f"{request.url.scheme}://{request.url.netloc.decode()}"
        try:
            linked = await self.executor.send(request)
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"the link leads to {place}, which cannot be reached ({reason})") from error
        if not linked.is_success:
            raise LinewatchError(f"the link leads to {place}, which responded with {linked.status_code}")
        return linked.content

    async def download(self, call: Request, to: Path) -> None:
        """Stream the response to a file, which appears once it is complete."""
        await self.send(call, to=to)

    async def ready(self) -> bool:
        """Whether the system reports that it is ready. Asked once.

        Raises:
            LinewatchError: the response is not from Linewatch.
        """
        response = await self._try(Request("GET", "/readyz"), None)
        if response.status_code in (HTTPStatus.SERVICE_UNAVAILABLE, *_OF_A_PROXY):
            return False
        try:
            if response.json()["status"] == "ready":
                return True
        except (ValueError, KeyError, TypeError):
            pass
        raise self._not_linewatch()

    def _not_linewatch(self) -> LinewatchError:
        return LinewatchError(f"{self.url} responds, but it is not Linewatch: does another program listen there?")

    async def send(self, call: Request, *, to: Path | None = None) -> httpx.Response:
        """Return the response, which is a success, or a link. If `to` is set, the body is written to that file."""
        begun = time.monotonic()
        attempt = broken = 0
        while True:
            error: LinewatchError
            try:
                response = await self._try(call, to)
            except Unreachable as unreachable:
                if not call.repeatable or (broken >= RECONNECTS and not self._is_tireless):
                    raise
                broken += 1
                error, pause = unreachable, _pause(attempt)
            else:
                if _is_response(call, response) or (broken and _already_deleted(call, response)):
                    if attempt:
                        self._on_wait(None, time.monotonic() - begun)
                    return response
                refused = _refusal(response)
                error, pause = refused, max(_pause(attempt), _retry_after(response))
                if not self._waits_out(refused) or time.monotonic() + pause > begun + self._patience:
                    raise refused
            self._on_wait(error, time.monotonic() + pause - begun)
            await self.executor.sleep(pause)
            attempt += 1
            if self._is_tireless:  # ask for an immediate response, which shows that the system is back
                call = replace(call, wait=0.0)

    @property
    def _is_tireless(self) -> bool:
        return self._patience == math.inf

    def _waits_out(self, refused: Refused) -> bool:
        if self._is_tireless and refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return True  # from a stopping system, a proxy, or a defect
        return refused.status in _WAIT_AND_TRY_AGAIN or refused.code == _IN_FLIGHT

    async def _try(self, call: Request, to: Path | None) -> httpx.Response:
        with self._naming_failures(call), call.body() as body:
            request = self._request(call, body)
            return await (self.executor.send(request) if to is None else self._download(request, to))

    async def _download(self, request: httpx.Request, to: Path) -> httpx.Response:
        regular = not to.exists() or to.is_file()
        draft = to.with_name(f"{to.name}.part") if regular else to
        try:
            with draft.open("wb") as file:
                response = await self.executor.download(request, file.write)
            if regular and response.is_success:
                draft.replace(to)
            return response
        finally:
            if regular:
                draft.unlink(missing_ok=True)

    def _request(self, call: Request, body: Body) -> httpx.Request:
        headers = {**body.get("headers", {})}
        if call.key is not None:
            headers["Idempotency-Key"] = call.key
        params = {**call.params}
        if call.wait:
            params["wait"] = round(call.wait, 3)
        timeout = self._timeout + call.wait
        return self.executor.http.build_request(
            call.method, call.path, **{**body, "headers": headers}, params=params, timeout=timeout
        )

    @contextmanager
    def _naming_failures(self, call: Request) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise Unreachable(
                f"{self.url} cannot be reached ({error}): start the system with `linewatch up`, or name its address"
            ) from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"no response from {self.url} ({reason}){_describe_uncertainty(call)}") from error


def _is_response(call: Request, response: httpx.Response) -> bool:
    """Whether a response is what was asked for."""
    return response.is_success or (call.takes_link and response.has_redirect_location)


def _already_deleted(call: Request, response: httpx.Response) -> bool:
    """Whether a DELETE gets 404 because an earlier try, whose connection broke, has deleted the resource."""
    return call.method == "DELETE" and response.status_code == HTTPStatus.NOT_FOUND


def _describe_uncertainty(call: Request) -> str:
    """What the caller must know about a request that got no response."""
    if call.key is not None:
        return f"; it may have been accepted: send it again with the same idempotency_key, {call.key!r}"
    if call.repeatable:
        return ""
    return "; it may have been accepted: check before you send it again"


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadAddress(f"{url!r} is not an address ({error}): it looks like http://127.0.0.1:8000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise BadAddress(f"{url!r} is not an address: it looks like http://127.0.0.1:8000")
    return base


def _pause(attempt: int) -> float:
    """Seconds before the next try, with jitter so that clients do not retry in step."""
    return min(FIRST_PAUSE * 2.0 ** min(attempt, 16), LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _retry_after(response: httpx.Response) -> float:
    """Seconds of `Retry-After`, which is a number or a date; 0 without it."""
    text = response.headers.get("Retry-After", "0")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - dt.datetime.now(dt.UTC)).total_seconds())
    except (TypeError, ValueError):  # neither: use our own pause
        return 0.0


def _refusal(response: httpx.Response) -> Refused:
    status = response.status_code
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
        resume_after, gate = problem.get("resume_after"), problem.get("gate")
    except (ValueError, KeyError, TypeError):
        return Refused(
            f"http_{status}",
            status,
            f"{response.request.url} responded with {status} and no problem document: is it Linewatch?",
        )
    if code in _CURSOR_LOST:
        return CursorLost(code, status, detail, resume_after)
    return GateNotMet(code, status, detail, gate) if code == _GATE_NOT_MET and gate else Refused(code, status, detail)
