"""The header `Idempotency-Key`: its format, and one request at a time for each key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from starlette.datastructures import Headers

from core.errors import Code, Refused
from core.intake import idempotency
from core.intake.idempotency import Key

_MAX_LENGTH = 255
_PATTERN = r"^[\x21-\x7e]+$"
_Header = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=_MAX_LENGTH,
        pattern=_PATTERN,
        description="A name for this request, in visible ASCII. If you send the same request again under the same key "
        "within 24 hours, it changes nothing and gets the first response, with `Idempotency-Replayed: true`.",
    ),
]


async def _only_one(request: Request, idempotency_key: _Header = None) -> str | None:
    # If one of several were used, a proxy that adds a header would turn one request into two.
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise Refused(Code.INVALID_FIELD, "Idempotency-Key: given more than once.")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_only_one)]


def has_wrong_key(headers: Headers) -> bool:
    """Whether `IdempotencyKey` refuses these headers."""
    keys = headers.getlist("Idempotency-Key")
    return len(keys) > 1 or any(len(key) > _MAX_LENGTH or not re.fullmatch(_PATTERN, key) for key in keys)


def replays(status: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that takes the header, for its status of success."""
    headers = {
        "Location": {"description": "The path of the resource.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {
            "description": "`true` if this is the response to an earlier request under the same key.",
            "schema": {"type": "string", "enum": ["true"]},
        },
    }
    return {status: {"headers": headers}}


class InFlight:
    """The keys of requests in progress in this api process; between processes the database decides."""

    def __init__(self) -> None:
        self._held: set[Key] = set()

    @contextmanager
    def hold(self, owner: str, header: str | None) -> Iterator[Key | None]:
        """Hold the key of a request while it is in progress; None without a key.

        Raises:
            Refused: IDEMPOTENCY_IN_FLIGHT if another request of this owner holds it.
        """
        if header is None:
            yield None
            return
        key = Key(owner, header)
        if key in self._held:
            raise idempotency.in_flight()
        self._held.add(key)
        try:
            yield key
        finally:
            self._held.discard(key)


def set_replayed(response: Response, *, replayed: bool) -> None:
    """Set the header that says whether a response is repeated."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
