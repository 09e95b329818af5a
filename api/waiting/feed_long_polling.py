"""Long polls of the feed: one query checks for all waiting requests, at most every `PAUSE_SECONDS`.

Only requests that new entries concern are woken. Their pages are read in separate threads, so that group commit never
waits for readers.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Engine

from core.feed import feed
from core.feed.feed import NewEntries

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
PAUSE_SECONDS = 0.02
THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _LongPoll:
    """A request that waits for entries after `newest`, of one recipe or all."""

    newest: int
    recipe_id: int | None
    reviews: bool
    more: asyncio.Event = field(default_factory=asyncio.Event)


class FeedLongPolls:
    """Wakes the requests that wait for new entries of the feed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="feed")
        self._waiting: set[_LongPoll] = set()
        self._notified = asyncio.Event()
        self._newest = 0
        self._task: asyncio.Task[None] | None = None
        self.is_ending = False

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.answer_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def answer_all(self) -> None:
        """Answer all waiting requests with what is known: the process ends."""
        self.is_ending = True
        for poll in self._waiting:
            poll.more.set()

    def notify(self) -> None:
        """Something became final: check soon."""
        self._notified.set()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a function that reads the feed."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    @asynccontextmanager
    async def expecting(self, newest: int, *, recipe_id: int | None, reviews: bool) -> AsyncIterator[asyncio.Event]:
        """An event that is set once there may be entries after `newest`, the newest number when the caller read."""
        poll = _LongPoll(newest, recipe_id, reviews)
        if self.is_ending:
            poll.more.set()
        elif not self._waiting:
            self._newest = newest
        elif self._newest > newest:  # new entries were found since the caller's read
            poll.more.set()
        self._waiting.add(poll)
        try:
            yield poll.more
        finally:
            self._waiting.discard(poll)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._notified.wait()
            except TimeoutError:
                pass  # notifications can be lost
            self._notified.clear()
            if self._waiting:
                await self._wake_concerned()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _wake_concerned(self) -> None:
        try:
            entries = await self.in_thread(lambda: self._new_entries(self._newest))
        except Exception as error:  # noqa: BLE001 - this loop must not end
            log.warning("could not check for new entries of the feed: %s", error)
            return
        self._newest = max(self._newest, entries.newest)
        for poll in self._waiting:
            if entries.newest > poll.newest and entries.concerns(poll.recipe_id, reviews=poll.reviews):
                poll.more.set()

    def _new_entries(self, behind: int) -> NewEntries:
        with self._engine.begin() as connection:
            return feed.number_and_summarise(connection, behind)
