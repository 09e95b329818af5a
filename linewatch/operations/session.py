"""What every operation stands on: typed answers."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote
from uuid import uuid4

from pydantic import ValidationError

from linewatch.errors import LinewatchError, Refused, Unreachable
from linewatch.http.request_bodies import Body, as_json
from linewatch.http.transport import Request, Transport
from linewatch.types.rescoring import RescoreRun
from linewatch.types.results import Batch, Inspection, Result

LONGEST_WAIT = 30.0  # seconds that one request waits at the server; longer waits are several

_LONGEST_KEY = 255

AnyResult = TypeVar("AnyResult", bound=Result)
AnyFinal = TypeVar("AnyFinal", Inspection, Batch, RescoreRun)


class Page(Protocol[AnyResult]):
    """A page of a listing."""

    @property
    def items(self) -> list[AnyResult]: ...

    @property
    def next_cursor(self) -> str | None: ...


class Session:
    """A running system, reached by a transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._executor = transport.executor
        self.url = transport.url

    async def ready(self) -> bool:
        """Whether the system can accept images now. Asked once.

        Raises:
            LinewatchError: something else answers.
        """
        return await self._transport.ready()

    async def close(self) -> None:
        """Give up the connections."""
        await self._executor.close()

    async def _get(
        self, kind: type[AnyResult], path: str, params: Mapping[str, Any] | None = None, *, wait: float = 0.0
    ) -> AnyResult:
        return self._read(kind, await self._transport.json(Request("GET", path, params or {}, wait=wait)))

    async def _post(
        self,
        kind: type[AnyResult],
        path: str,
        json: Mapping[str, Any] | None = None,
        *,
        harmless_twice: bool = False,
    ) -> AnyResult:
        """What a POST answers; one that is harmless twice is sent again where its connection broke."""
        call = _with_json("POST", path, json, harmless_twice=harmless_twice)
        return self._read(kind, await self._transport.json(call))

    async def _upload(
        self, kind: type[AnyResult], path: str, body: Callable[[], AbstractContextManager[Body]], key: str | None
    ) -> AnyResult:
        """What a POST with a body of its own answers; it is done once, however often it has to be sent.

        Args:
            key: its `Idempotency-Key`; None for what is known by its content.
        """
        call = Request("POST", path, body=body, key=key, harmless_twice=key is None)
        return self._read(kind, await self._transport.json(call))

    async def _put(self, kind: type[AnyResult], path: str, json: Mapping[str, Any]) -> AnyResult:
        return self._read(kind, await self._transport.json(_with_json("PUT", path, json)))

    async def _patch(self, kind: type[AnyResult], path: str, json: Mapping[str, Any]) -> AnyResult:
        return self._read(kind, await self._transport.json(_with_json("PATCH", path, json)))

    async def _delete(self, path: str) -> None:
        await self._transport.json(Request("DELETE", path))

    async def _list(self, kind: type[AnyResult], path: str) -> list[AnyResult]:
        answer = await self._transport.json(Request("GET", path))
        items = answer.get("items") if isinstance(answer, dict) else None
        return [self._read(kind, item) for item in items or []]

    async def _pages(self, kind: type[Any], path: str, params: Mapping[str, Any]) -> AsyncGenerator[Page[Any], None]:
        """The pages of a listing, fetched as they are needed."""
        place: dict[str, str] = {}
        while True:
            page = await self._get(kind, path, {**params, **place})
            yield page
            if page.next_cursor is None:
                return
            place = {"cursor": page.next_cursor}

    async def _final(self, kind: type[AnyFinal], path: str, wait: float) -> AnyFinal:
        """A thing as soon as it is final, or as it stands after `wait` seconds."""
        give_up = time.monotonic() + wait
        while True:
            left = max(0.0, give_up - time.monotonic())
            found = await self._get(kind, path, wait=min(left, LONGEST_WAIT))
            if found.final or left == 0:
                return found

    async def _final_of_accepted(self, made: AnyFinal, path: str, wait: float) -> AnyFinal:
        """What was just accepted, as `_final` has it; where that cannot be had, the error says that it was accepted."""
        try:
            return await self._final(type(made), path, wait)
        except Refused as refused:
            needs = "; waiting needs a key with the scope read, too" if refused.code == "forbidden" else ""
            why = f"{made.id} was accepted, but cannot be waited for: {refused.detail}{needs}"
            raise Refused(refused.code, refused.status, why) from refused
        except Unreachable as error:
            raise Unreachable(f"{made.id} was accepted, but cannot be waited for: {error}") from error

    def _read(self, kind: type[AnyResult], answer: Any) -> AnyResult:
        try:
            return kind.model_validate(answer)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in fault["loc"])
            raise LinewatchError(
                f"{self.url} answers with a {kind.__name__} that this client cannot read ({where}: {fault['msg']}): "
                "are they of the same version?"
            ) from error


def url_path(*steps: object) -> str:
    """The path of a thing; what was given as a name cannot lead elsewhere."""
    return "/".join(["/v1", *(_path_segment(str(step)) for step in steps)])


def key_or_new(given: str | None) -> str:
    """An `Idempotency-Key`: the one that was given, or one of its own.

    Raises:
        ValueError: it is no key.
    """
    if given is None:
        return uuid4().hex
    if not 1 <= len(given) <= _LONGEST_KEY or not all("!" <= character <= "~" for character in given):
        raise ValueError(f"idempotency_key: 1 to {_LONGEST_KEY} visible ASCII characters without blanks, not {given!r}")
    return given


def _path_segment(name: str) -> str:
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _with_json(method: str, path: str, json: Mapping[str, Any] | None, *, harmless_twice: bool = False) -> Request:
    if json is None:
        return Request(method, path, harmless_twice=harmless_twice)
    return Request(method, path, body=partial(as_json, json), harmless_twice=harmless_twice)
