"""Downloads of any length: few at a time, made step by step in threads that nothing else waits for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from core.database import UNUSABLE
from core.errors import Code, Refused

log = logging.getLogger(__name__)

STALLED_SECONDS = 60.0
"""A client that takes nothing for so long loses its download: its place is for others."""

T = TypeVar("T")


class Downloads:
    """The downloads of one api process."""

    def __init__(self, *, most: int, threads: int) -> None:
        """At most `most` downloads run at a time, because each holds memory; `threads` threads work on them."""
        self._most = most
        self._under_way = 0
        self._threads = anyio.CapacityLimiter(threads)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place for one download; refuses when all are taken."""
        if self._under_way >= self._most:
            raise Refused(Code.BUSY, f"{self._most} exports are under way, and more may not be at a time. Wait.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def step(self, iterator: Iterator[T]) -> T | None:
        """The next of an iterator, made in a thread; None at its end."""
        return await anyio.to_thread.run_sync(lambda: next(iterator, None), limiter=self._threads)

    async def stream(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, each made in a thread; between two of them no thread is held."""
        while (chunk := await self.step(chunks)) is not None:
            if chunk:
                yield chunk


class _ClientStalled(Exception):  # noqa: N818 - it reads as what happened
    """A client takes nothing."""


class Download(StreamingResponse):
    """An answer that may break off: then it has no last chunk, and the log has a line that says why."""

    stalled_seconds = STALLED_SECONDS

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self.stalled_seconds):
                    await send(message)
            except TimeoutError:
                raise _ClientStalled from None

        try:
            await super().stream_response(send_in_time)
        except _ClientStalled:
            log.warning("a download was broken off: its client took nothing for %g seconds", self.stalled_seconds)
        except UNUSABLE as error:
            log.warning("a download broke off: database unavailable: %s", str(error).partition("\n")[0])
