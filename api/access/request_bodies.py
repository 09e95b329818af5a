"""Limits of request bodies: the time between two chunks, the rate, and the size of bodies other than uploads."""

import asyncio
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from core.errors import Code, Refused

MAX_BYTES = 1024 * 1024
"""The limit for bodies that are read into memory. Uploads have other limits."""

MIN_BYTES_PER_SECOND = 1000
"""A body that arrives more slowly than this on average fails: a trickle would occupy a connection for ever."""


def limit(receive: Receive, *, is_upload: bool, seconds: float) -> Receive:
    """Limit the body of a request.

    A request fails if nothing arrives for `seconds`, or if its body keeps the api waiting for `seconds` longer than at
    `MIN_BYTES_PER_SECOND`; this releases its idempotency key. The size is limited unless the request is an upload.
    """
    received, waited, is_complete = 0, 0.0, False

    async def bounded() -> Message:
        nonlocal received, waited, is_complete
        if is_complete:  # the next message is the disconnect: no time limit, because the response takes longer
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds - max(0.0, waited - received / MIN_BYTES_PER_SECOND)):
                message: Any = await receive()
        except TimeoutError:
            is_complete = True
            raise _timed_out(seconds, is_upload=is_upload) from None
        waited += time.monotonic() - began
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if not is_upload and received > MAX_BYTES:
            # FastAPI reads JSON bodies and lets only this exception through.
            raise HTTPException(413, f"The body must not be larger than {MAX_BYTES} bytes.")
        return message  # type: ignore[no-any-return]

    return bounded


def _timed_out(seconds: float, *, is_upload: bool) -> Exception:
    detail = f"The body stopped for {seconds:g} s, or arrived too slowly. Send the request again."
    return Refused(Code.REQUEST_TIMEOUT, detail) if is_upload else HTTPException(408, detail)
