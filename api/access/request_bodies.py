"""Limits for request bodies: the time between two chunks, and the size of bodies that are read whole."""

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from core.errors import Code, Refused

MAX_BYTES = 1024 * 1024
"""Of bodies that are read whole; those of uploads have their own limits."""


def limit(receive: Receive, *, is_upload: bool, seconds: float) -> Receive:
    """Limit the body of a request.

    A client that sends nothing for `seconds` has vanished: its request ends, and its idempotency key is free again. The
    size is limited unless it is an upload.
    """
    received, is_complete = 0, False

    async def bounded() -> Message:
        nonlocal received, is_complete
        if is_complete:  # the next message is the client's disconnect, which may take as long as the answer
            return await receive()
        try:
            async with asyncio.timeout(seconds):
                message: Any = await receive()
        except TimeoutError:
            is_complete = True
            raise _timed_out(seconds, is_upload=is_upload) from None
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if not is_upload and received > MAX_BYTES:
            # FastAPI, which reads JSON bodies, lets only this exception through.
            raise HTTPException(413, f"This body may have at most {MAX_BYTES} bytes.")
        return message  # type: ignore[no-any-return]

    return bounded


def _timed_out(seconds: float, *, is_upload: bool) -> Exception:
    detail = f"Nothing was received for {seconds:g} s; send the request again."
    return Refused(Code.REQUEST_TIMEOUT, detail) if is_upload else HTTPException(408, detail)
