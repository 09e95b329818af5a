"""Streamed responses. The number of downloads is limited, and separate threads produce their chunks."""

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
"""A stream is aborted if its client reads nothing for this long. This frees its slot for other clients."""

T = TypeVar("T")


class Downloads:
    """The downloads of one api process."""

    def __init__(self, *, max_downloads: int, threads: int) -> None:
        """At most `max_downloads` run at a time, because each holds memory; `threads` threads produce their chunks."""
        self._max_downloads = max_downloads
        self._running = 0
        self._threads = anyio.CapacityLimiter(threads)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Occupy a slot for one download.

        Raises:
            Refused: BUSY if all slots are occupied.
        """
        if self._running >= self._max_downloads:
            raise Refused(Code.BUSY, f"{self._max_downloads} exports are running, the maximum. Retry later.")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def step(self, iterator: Iterator[T]) -> T | None:
        """The next item of an iterator, produced in a thread; None at the end."""
        return await anyio.to_thread.run_sync(lambda: next(iterator, None), limiter=self._threads)

    async def stream(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks, each produced in a thread. No thread is occupied between two chunks."""
        while (chunk := await self.step(chunks)) is not None:
            if chunk:
                yield chunk


class _ClientStalled(Exception):  # noqa: N818 - an event, not an error
    """The client has read nothing for `stalled_seconds`."""


class Stream(StreamingResponse):
    """A streamed response. If it fails midway, it ends without the last chunk, and the reason is logged."""

    stalled_seconds = STALLED_SECONDS
    noun = "stream"

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
            log.warning("aborted a %s: the client read nothing for %g seconds", self.noun, self.stalled_seconds)
        except UNUSABLE as error:
            log.warning("aborted a %s: database unavailable: %s", self.noun, str(error).partition("\n")[0])


class Download(Stream):
    """A file that is sent while it is made."""

    noun = "download"


class EventStream(Stream):
    """Server-sent events."""

    media_type = "text/event-stream"
