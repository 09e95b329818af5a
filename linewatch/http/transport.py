"""Requests to a running system: when they are tried again, and what their failures are called."""

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
"""Idle connections are given up before the server (5 s) does so: not everything can be repeated on a new one."""

_WAIT_AND_TRY_AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_OF_A_PROXY = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
_CURSOR_LOST = ("cursor_epoch", "cursor_expired")
_GATE_NOT_MET = "gate_not_met"
_IN_FLIGHT = "idempotency_in_flight"
_IDEMPOTENT = ("GET", "PATCH", "DELETE")  # what a PATCH says here are values, not steps
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

OnWait = Callable[[LinewatchError | None, float], object]
"""Is told, before each pause, why the same is tried again and for how many seconds it will then have been tried; and
None, with the seconds that it took, once it was answered."""


def _no_body() -> AbstractContextManager[Body]:
    return nullcontext({})


@dataclass(frozen=True)
class Request:
    """One request, which may be sent several times.

    Attributes:
        body: opened for each try, and closed after it.
        wait: seconds that the server is asked to wait, which are allowed for.
        key: its `Idempotency-Key`: however often it is sent, it is done once.
        harmless_twice: whether a POST without a key may be done twice.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Callable[[], AbstractContextManager[Body]] = _no_body
    wait: float = 0.0
    key: str | None = None
    harmless_twice: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again where it is not known what became of it."""
        return self.method in _IDEMPOTENT or self.key is not None or self.harmless_twice


def options(url: str, api_key: str | None) -> dict[str, Any]:
    """The arguments of an httpx client for a system's address.

    Raises:
        BadAddress: the address is none.
        BadKey: the key is none.
    """
    base = _base(url)
    if api_key and not all("!" <= character <= "~" for character in api_key):
        raise BadKey("the API key is none: it looks like lw_…, without blanks and in ASCII alone")
    return {
        "base_url": base,
        "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
        "limits": httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
        "trust_env": base.host not in _LOOPBACK,  # a proxy could not reach this machine's loopback
    }


class Transport:
    """Sends calls over an executor.

    429 and 503 say that nothing was accepted, 409 `idempotency_in_flight` that the same upload is still being accepted:
    any call is tried again after `Retry-After`, while `patience` lasts. A connection that fails is tried again where
    the call is repeatable: any other may have been accepted before it broke.
    """

    def __init__(self, executor: Executor, *, timeout: float, patience: float, on_wait: OnWait | None = None) -> None:
        """Seconds are meant by `timeout` (for each answer) and `patience` (in all)."""
        self.executor = executor
        self.url = str(executor.http.base_url).rstrip("/")
        self._timeout = timeout
        self._patience = patience
        self._on_wait = on_wait or (lambda *_: None)

    def tireless(self) -> "Transport":
        """The same, but nothing that says that the system is away ends a call that may be repeated."""
        return Transport(self.executor, timeout=self._timeout, patience=math.inf, on_wait=self._on_wait)

    async def json(self, call: Request) -> Any:
        """The JSON that a call is answered with; None for an answer without content."""
        answer = await self.send(call)
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise self._stranger() from error

    async def content(self, path: str) -> bytes:
        """The bytes of a GET."""
        return (await self.send(Request("GET", path))).content

    async def download(self, call: Request, to: Path) -> None:
        """Write what a call is answered with to a file, without holding it in memory; it is there once it is whole."""
        await self.send(call, to=to)

    async def ready(self) -> bool:
        """Whether the system says that it is ready; asked once.

        Raises:
            LinewatchError: it does not answer as Linewatch does.
        """
        answer = await self._tried(Request("GET", "/readyz"), None)
        if answer.status_code in (HTTPStatus.SERVICE_UNAVAILABLE, *_OF_A_PROXY):
            return False
        try:
            if answer.json()["status"] == "ready":
                return True
        except (ValueError, KeyError, TypeError):
            pass
        raise self._stranger()

    def _stranger(self) -> LinewatchError:
        return LinewatchError(f"{self.url} answers, but not as Linewatch does: does something else listen there?")

    async def send(self, call: Request, *, to: Path | None = None) -> httpx.Response:
        """The answer to a call, a success; its body goes to the file `to` where one is named."""
        begun = time.monotonic()
        attempt = broken = 0
        while True:
            error: LinewatchError
            try:
                answer = await self._tried(call, to)
            except Unreachable as unreachable:
                if not call.repeatable or (broken >= RECONNECTS and not self._is_tireless):
                    raise
                broken += 1
                error, pause = unreachable, _pause(attempt)
            else:
                if answer.is_success or (broken and _already_deleted(call, answer)):
                    if attempt:
                        self._on_wait(None, time.monotonic() - begun)
                    return answer
                refused = _refusal(answer)
                error, pause = refused, max(_pause(attempt), _retry_after(answer))
                if not self._waits_out(refused) or time.monotonic() + pause > begun + self._patience:
                    raise refused
            self._on_wait(error, time.monotonic() + pause - begun)
            await self.executor.sleep(pause)
            attempt += 1
            if self._is_tireless:  # an answer at once says that it goes on; a long wait would hide it
                call = replace(call, wait=0.0)

    @property
    def _is_tireless(self) -> bool:
        return self._patience == math.inf

    def _waits_out(self, refused: Refused) -> bool:
        if self._is_tireless and refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return True  # of a system that is being stopped, of a proxy before it, of a defect: nothing is lost
        return refused.status in _WAIT_AND_TRY_AGAIN or refused.code == _IN_FLIGHT

    async def _tried(self, call: Request, to: Path | None) -> httpx.Response:
        with self._naming_failures(call), call.body() as body:
            request = self._request(call, body)
            return await (self.executor.send(request) if to is None else self._downloaded(request, to))

    async def _downloaded(self, request: httpx.Request, to: Path) -> httpx.Response:
        regular = not to.exists() or to.is_file()
        draft = to.with_name(f"{to.name}.part") if regular else to
        try:
            with draft.open("wb") as file:
                answer = await self.executor.download(request, file.write)
            if regular and answer.is_success:
                draft.replace(to)
            return answer
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
            why = str(error) or type(error).__name__
            raise Unreachable(f"{self.url} gave no answer ({why}){_describe_uncertainty(call)}") from error


def _already_deleted(call: Request, answer: httpx.Response) -> bool:
    """Whether what is to be deleted is not there: after a try that broke, that try has deleted it."""
    return call.method == "DELETE" and answer.status_code == HTTPStatus.NOT_FOUND


def _describe_uncertainty(call: Request) -> str:
    """What is not known of a call that was sent and not answered."""
    if call.key is not None:
        return f"; what was sent may have been accepted: send it again with the same idempotency_key, {call.key!r}"
    if call.repeatable:
        return ""
    return "; what was sent may have been accepted: look before you send it again"


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadAddress(f"{url!r} is not an address ({error}): it looks like http://127.0.0.1:8000") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise BadAddress(f"{url!r} is not an address: it looks like http://127.0.0.1:8000")
    return base


def _pause(attempt: int) -> float:
    """Seconds before the next try, spread so that clients which failed together do not return together."""
    return min(FIRST_PAUSE * 2.0 ** min(attempt, 16), LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _retry_after(answer: httpx.Response) -> float:
    """Seconds that the answer asks for, as a number or a date; 0 where it asks for none."""
    text = answer.headers.get("Retry-After", "0")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - dt.datetime.now(dt.UTC)).total_seconds())
    except (TypeError, ValueError):  # neither: our own pause has to do
        return 0.0


def _refusal(answer: httpx.Response) -> Refused:
    status = answer.status_code
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), str(problem["detail"])
        resume_after, gate = problem.get("resume_after"), problem.get("gate")
    except (ValueError, KeyError, TypeError):
        return Refused(
            f"http_{status}", status, f"{answer.request.url} answers {status}, but not as Linewatch does: is it one?"
        )
    if code in _CURSOR_LOST:
        return CursorLost(code, status, detail, resume_after)
    return GateNotMet(code, status, detail, gate) if code == _GATE_NOT_MET and gate else Refused(code, status, detail)
