"""Waiting for more of the feed: one query for all waiting requests of this process, at most every `PAUSE_SECONDS`.

However many wait and however fast results come, the feed is asked what is new once for all of them, and only those are
woken whom it concerns. Their pages are read in threads of their own, so that group commit never waits for a reader's.
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
PAUSE_SECONDS = 0.05
THREADS = 4

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request that waits for entries after `newest`, of one recipe or of all."""

    newest: int
    recipe_id: int | None
    reviews: bool
    more: asyncio.Event = field(default_factory=asyncio.Event)


class FeedWaiters:
    """Wakes the requests that wait for more of the feed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="feed")
        self._waiting: set[_Waiting] = set()
        self._hinted = asyncio.Event()
        self._newest = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._waiting:
            one.more.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def notify(self) -> None:
        """Something became final: look soon."""
        self._hinted.set()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Read something of the feed."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    @asynccontextmanager
    async def expecting(self, newest: int, *, recipe_id: int | None, reviews: bool) -> AsyncIterator[asyncio.Event]:
        """An event that is set once there may be entries behind the number `newest`, which was read before."""
        one = _Waiting(newest, recipe_id, reviews)
        if not self._waiting:
            self._newest = newest
        elif self._newest > newest:  # reported to the others between this request's read and its wait
            one.more.set()
        self._waiting.add(one)
        try:
            yield one.more
        finally:
            self._waiting.discard(one)

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._hinted.wait()
            except TimeoutError:
                pass  # notifications can be lost
            self._hinted.clear()
            if self._waiting:
                await self._look()
                await asyncio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        try:
            news = await self.in_thread(lambda: self._news(self._newest))
        except Exception as error:  # noqa: BLE001 - this loop must go on, whatever happens
            log.warning("could not look for what is new in the feed: %s", error)
            return
        self._newest = max(self._newest, news.newest)
        for one in self._waiting:
            if news.newest > one.newest and news.concerns(one.recipe_id, reviews=one.reviews):
                one.more.set()

    def _news(self, behind: int) -> NewEntries:
        with self._engine.begin() as connection:
            return feed.number_and_summarise(connection, behind)
