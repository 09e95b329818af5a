"""Streams of server-sent events: the feed, sent as it grows, until the client leaves.

A stream occupies no thread while it waits, and holds one page of events at a time: a page is read when the client has
taken the one before. Streams that are at the same place of the feed share the read of their next page.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from api.responses.problems import body
from api.waiting.feed_long_polling import FeedLongPolls
from core.database import UNUSABLE
from core.documents.documents import FeedItem
from core.errors import Code, Refused

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
"""The longest silence. Proxies close connections that are silent for longer, and a client that is gone is noticed."""
PAUSE_SECONDS = 0.2
"""Time after the first new result in which further ones are collected."""
OUTAGE_SECONDS = 1.0
"""Pause between two tries to read while the database cannot be used."""
RECONNECT_MS = 1000
"""How soon a client reconnects."""
LONGEST_SECONDS = 300.0
"""After this time a stream ends and its client reconnects, so that a revoked API key does not read on for ever."""

_CHUNK_BYTES = 64 * 1024
_HEARTBEAT = b": heartbeat\n\n"


@dataclass(frozen=True)
class Place:
    """Which results a stream sends; None for any."""

    line_id: str | None
    station_id: str | None

    def has(self, event: "Event") -> bool:
        return self.line_id in (None, event.line_id) and self.station_id in (None, event.station_id)


@dataclass(frozen=True)
class Event:
    """A result as a server-sent event."""

    line_id: str | None
    station_id: str | None
    encoded: bytes

    @classmethod
    def of(cls, item: FeedItem) -> "Event":
        text = f"id: {item.cursor}\nevent: inspection\ndata: {item.model_dump_json()}\n\n"
        return cls(item.line_id, item.station_id, text.encode())


@dataclass(frozen=True)
class EventPage:
    """A page of the feed.

    Attributes:
        next_cursor: the place of the next page.
        has_more: whether the feed has more entries already.
        newest: the newest number of the feed when the page was read.
        recipe_id: of the recipe whose results it has; None for all.
    """

    events: Sequence[Event]
    next_cursor: str
    has_more: bool
    newest: int
    recipe_id: int | None

    def chunks(self, place: Place) -> Iterator[bytes]:
        """Yield the events of a place in chunks, and where to continue, which an event without data says.

        A chunk is about as large as the buffer of a connection, so a slow client holds no copy of the page.
        """
        chunk = bytearray()
        for event in self.events:
            if place.has(event):
                chunk += event.encoded
            if len(chunk) >= _CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
        yield bytes(chunk) + f"id: {self.next_cursor}\n\n".encode()


class EventStreams:
    """The streams of one api process."""

    def __init__(self, polls: FeedLongPolls, *, most: int) -> None:
        """At most `most` streams run at a time, because each occupies a connection."""
        self._polls = polls
        self._most = most
        self._running = 0
        self._reads: dict[Hashable, asyncio.Task[EventPage | None]] = {}

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Occupy a slot for one stream.

        Raises:
            Refused: BUSY if all slots are occupied.
        """
        if self._running >= self._most:
            raise Refused(
                Code.BUSY, f"{self._most} streams are open, the maximum. Close one, or read GET /v1/results?wait=60."
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def stream(
        self, page: EventPage, read: Callable[[str], EventPage], kind: Hashable, place: Place, *, reviews: bool
    ) -> AsyncIterator[bytes]:
        """Yield the events of a page and of all later ones, and heartbeats.

        Args:
            page: the first one.
            read: returns the page after a cursor; it is called in a thread.
            kind: streams of the same kind share their reads.
            reviews: whether the pages have the entries of reviews, too.
        """
        ends_at = time.monotonic() + LONGEST_SECONDS
        yield f"retry: {RECONNECT_MS}\n\n".encode()
        while True:
            for chunk in page.chunks(place):
                yield chunk
            while not page.has_more and not await self._wait_for_more(page, reviews=reviews):
                if self._polls.is_ending or time.monotonic() > ends_at:
                    return
                yield _HEARTBEAT
            if self._polls.is_ending or time.monotonic() > ends_at:
                return
            try:
                page = await self._read(kind, page, read)
            except Refused as refused:  # the cursor is lost
                yield _problem(refused)
                return

    async def _wait_for_more(self, page: EventPage, *, reviews: bool) -> bool:
        """Wait until there may be a next page. False if there is none until a heartbeat is due."""
        async with self._polls.expecting(page.newest, recipe_id=page.recipe_id, reviews=reviews) as more:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await more.wait()
            except TimeoutError:
                return False
        await asyncio.sleep(PAUSE_SECONDS)
        return True

    async def _read(self, kind: Hashable, page: EventPage, read: Callable[[str], EventPage]) -> EventPage:
        """Read the next page, together with other streams; an empty one after a pause if it cannot be read now."""
        key = (kind, page.next_cursor)
        if key not in self._reads:
            self._reads[key] = asyncio.create_task(self._read_in_thread(lambda: read(page.next_cursor)))
            self._reads[key].add_done_callback(lambda task: self._end_read(key, task))
        following = await asyncio.shield(self._reads[key])
        if following is None:
            await asyncio.sleep(OUTAGE_SECONDS)
            return replace(page, events=(), has_more=True)
        return following

    def _end_read(self, key: Hashable, task: asyncio.Task[EventPage | None]) -> None:
        del self._reads[key]
        if not task.cancelled():
            task.exception()  # nobody may be left to receive it

    async def _read_in_thread(self, read: Callable[[], EventPage]) -> EventPage | None:
        try:
            return await self._polls.in_thread(read)
        except UNUSABLE as error:
            log.warning("streams of results wait for the database: %s", error)
            return None


def _problem(refused: Refused) -> bytes:
    return f"event: problem\ndata: {json.dumps(body(refused))}\n\n".encode()
