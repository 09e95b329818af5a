"""Long polls of the feed: only readers of matching entries are woken, and no entry is missed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from sqlalchemy import Engine

from api.waiting.feed_long_polling import FeedLongPolls
from core.feed import feed

SOON = 20.0


@asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[FeedLongPolls]:
    polls = FeedLongPolls(engine)
    await polls.start()
    try:
        yield polls
    finally:
        await polls.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SOON):
            await scenario()

    asyncio.run(bounded())


def enter(engine: Engine, recipe_id: int, event: feed.Kind = "final") -> None:
    with engine.begin() as connection:
        feed.append(connection, [(uuid4(), recipe_id)], event)


def newest(engine: Engine) -> int:
    with engine.begin() as connection:
        return feed.number_entries(connection).newest


def test_only_readers_of_matching_entries_are_woken(engine: Engine) -> None:
    async def scenario() -> None:
        async with following(engine) as polls, AsyncExitStack() as waiting:
            begin = newest(engine)

            async def expecting(recipe_id: int | None, *, reviews: bool = False) -> asyncio.Event:
                waiter = polls.expecting(begin, recipe_id=recipe_id, reviews=reviews)
                return await waiting.enter_async_context(waiter)

            quiet = [await expecting(2) for _ in range(20)]
            busy, everything = await expecting(1), await expecting(None)
            with_reviews, without = await expecting(3, reviews=True), await expecting(3)
            for _ in range(20):
                enter(engine, 1)
                enter(engine, 3, "reviewed")
                polls.notify()
                await asyncio.sleep(0.01)
            await asyncio.gather(busy.wait(), everything.wait(), with_reviews.wait())
            polls.notify()
            await asyncio.sleep(0.2)
            assert not any(waiter.is_set() for waiter in [*quiet, without])
            enter(engine, 2)
            polls.notify()
            await asyncio.gather(*(waiter.wait() for waiter in quiet))
            assert not without.is_set()

    run(scenario)


def test_a_lost_notification_delays_a_reader_by_a_second(engine: Engine) -> None:
    async def scenario() -> None:
        async with following(engine) as polls, polls.expecting(0, recipe_id=None, reviews=False) as more:
            enter(engine, 1)
            await more.wait()

    run(scenario)


def test_entries_committed_before_the_wait_wake_at_once(engine: Engine) -> None:
    """A reader that is behind other waiting readers is woken too."""

    async def scenario() -> None:
        async with following(engine) as polls, polls.expecting(0, recipe_id=9, reviews=False):
            enter(engine, 1)
            polls.notify()
            async with polls.expecting(0, recipe_id=1, reviews=False) as more:
                await more.wait()
            async with polls.expecting(0, recipe_id=1, reviews=False) as late:
                await late.wait()

    run(scenario)


def test_a_reader_that_is_ahead_takes_nothing_from_the_others(engine: Engine) -> None:
    async def scenario() -> None:
        async with following(engine) as polls, polls.expecting(0, recipe_id=1, reviews=False) as first:
            enter(engine, 1)
            async with polls.expecting(newest(engine), recipe_id=1, reviews=False):
                polls.notify()
                await first.wait()

    run(scenario)
