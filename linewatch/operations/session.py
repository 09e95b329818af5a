"""The base of all operations: requests with typed responses."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote
from uuid import uuid4

from msgspec import ValidationError

from linewatch.errors import LinewatchError, Refused, Unreachable
from linewatch.http.request_bodies import Body, as_json
from linewatch.http.transport import Request, Transport
from linewatch.types.base import Result
from linewatch.types.rescoring import RescoreRun
from linewatch.types.results import Batch, Inspection
from linewatch.types.training import TrainingRun

LONGEST_WAIT = 30.0  # seconds that one request waits at the server; longer waits are several

_LONGEST_KEY = 255

AnyResult = TypeVar("AnyResult", bound=Result)
AnyFinal = TypeVar("AnyFinal", Inspection, Batch, RescoreRun, TrainingRun)


class Page(Protocol[AnyResult]):
    """A page of a listing."""

    @property
    def items(self) -> list[AnyResult]: ...

    @property
    def next_cursor(self) -> str | None: ...


class Session:
    """A running system and the transport to it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._executor = transport.executor
        self.url = transport.url

    async def ready(self) -> bool:
        """Whether the system can accept images now. Asked once.

        Raises:
            LinewatchError: the response is not from Linewatch.
        """
        return await self._transport.ready()

    async def close(self) -> None:
        """Close the connections."""
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
        """The response to a POST, which is retried after a connection error if it is `harmless_twice`."""
        call = _with_json("POST", path, json, harmless_twice=harmless_twice)
        return self._read(kind, await self._transport.json(call))

    async def _upload(
        self, kind: type[AnyResult], path: str, body: Callable[[], AbstractContextManager[Body]], key: str | None
    ) -> AnyResult:
        """The response to an upload, which takes effect once, however often it is sent.

        Args:
            key: its `Idempotency-Key`; None if the system recognises the same content.
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
        """A resource as soon as it is final, or in its current state after `wait` seconds."""
        give_up = time.monotonic() + wait
        while True:
            left = max(0.0, give_up - time.monotonic())
            resource = await self._get(kind, path, wait=min(left, LONGEST_WAIT))
            if resource.final or left == 0:
                return resource

    async def _final_of_accepted(self, accepted: AnyFinal, path: str, wait: float) -> AnyFinal:
        """Like `_final`, for a resource that was just accepted; an error says that it was accepted."""
        try:
            return await self._final(type(accepted), path, wait)
        except Refused as refused:
            hint = "; waiting needs a key with the scope read" if refused.code == "forbidden" else ""
            why = f"{accepted.id} was accepted, but waiting for it failed: {refused.detail}{hint}"
            raise Refused(refused.code, refused.status, why) from refused
        except Unreachable as error:
            raise Unreachable(f"{accepted.id} was accepted, but waiting for it failed: {error}") from error

    def _read(self, kind: type[AnyResult], answer: Any) -> AnyResult:
        try:
            return kind.from_document(answer)
        except ValidationError as error:
            raise LinewatchError(
                f"{self.url} answers with a {kind.__name__} that this client cannot read ({error}): "
                "do client and system have the same version?"
            ) from error


def url_path(*steps: object) -> str:
    """The path of a resource; a name with special characters stays one segment."""
    return "/".join(["/v1", *(_path_segment(str(step)) for step in steps)])


def key_or_new(key: str | None) -> str:
    """Return `key` as an `Idempotency-Key`, or a new one for None.

    Raises:
        ValueError: `key` is not a valid key.
    """
    if key is None:
        return uuid4().hex
    if not 1 <= len(key) <= _LONGEST_KEY or not all("!" <= character <= "~" for character in key):
        raise ValueError(f"idempotency_key: 1 to {_LONGEST_KEY} visible ASCII characters without blanks, not {key!r}")
    return key


def _path_segment(name: str) -> str:
    return name.replace(".", "%2E") if name in (".", "..") else quote(name, safe="")


def _with_json(method: str, path: str, json: Mapping[str, Any] | None, *, harmless_twice: bool = False) -> Request:
    if json is None:
        return Request(method, path, harmless_twice=harmless_twice)
    return Request(method, path, body=partial(as_json, json), harmless_twice=harmless_twice)
