"""The header `Idempotency-Key`: what it may hold, and one request at a time under each key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from core.errors import Code, Refused
from core.intake import idempotency
from core.intake.idempotency import Key

_Given = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="What this request is called, in visible ASCII. The same request sent again under the same key "
        "within 24 hours changes nothing and is answered as it was at first, with `Idempotency-Replayed: true`.",
    ),
]


async def _only_one(request: Request, idempotency_key: _Given = None) -> str | None:
    # If one of several counted, a proxy that adds a header would turn one request into two.
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise Refused(Code.INVALID_FIELD, "Idempotency-Key: given more than once.")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_only_one)]


def replays(status: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that takes the header and answers with this status."""
    headers = {
        "Location": {"description": "Where it is.", "schema": {"type": "string"}},
        "Idempotency-Replayed": {
            "description": "`true` where this is the answer to an earlier request under the same key.",
            "schema": {"type": "string", "enum": ["true"]},
        },
    }
    return {status: {"headers": headers}}


class InFlight:
    """The keys whose requests this api process is working on; between processes the database decides."""

    def __init__(self) -> None:
        self._held: set[Key] = set()

    @contextmanager
    def alone(self, owner: str, given: str | None) -> Iterator[Key | None]:
        """The key of a request, for as long as it is worked on; None where it has none.

        Raises:
            Refused: another request of this owner and key is being worked on.
        """
        if given is None:
            yield None
            return
        key = Key(owner, given)
        if key in self._held:
            raise idempotency.in_flight()
        self._held.add(key)
        try:
            yield key
        finally:
            self._held.discard(key)


def tell(response: Response, *, replayed: bool) -> None:
    """Say in the answer's headers whether it was given before."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
