"""Streams of events inside one process: heartbeats, outages, lost cursors, and reads that streams share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from api.waiting import event_streams
from api.waiting.event_streams import Event, EventPage, EventStreams, Place
from api.waiting.feed_long_polling import FeedLongPolls
from core.errors import Code, Refused
from core.feed import feed

SOON = 60.0
EVERYWHERE = Place(None, None)


class Feed:
    """Reads pages of the feed as the api does, with the inspection's id in the place of its document."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reads = 0
        self.errors: list[Exception] = []

    def read(self, after: str, limit: int = 3) -> EventPage:
        self.reads += 1
        if self.errors:
            raise self.errors.pop(0)
        with self.engine.begin() as connection:
            state = feed.number_entries(connection)
            page = feed.read(connection, state, feed.start_cursor(connection, state, after), limit=limit)
        events = [Event("line-1", None, f"data: {entry.inspection_id}\n\n".encode()) for entry in page.entries]
        return EventPage(events, str(page.next_cursor), len(events) == limit, state.newest, None)

    def add(self, number: int = 1) -> list[UUID]:
        ids = [uuid4() for _ in range(number)]
        with self.engine.begin() as connection:
            feed.append(connection, [(inspection_id, 1) for inspection_id in ids], "final")
        return ids


@asynccontextmanager
async def streaming(engine: Engine) -> AsyncIterator[tuple[EventStreams, FeedLongPolls, Feed]]:
    polls = FeedLongPolls(engine)
    await polls.start()
    try:
        yield EventStreams(polls, most=2), polls, Feed(engine)
    finally:
        await polls.stop()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SOON):
            await scenario()

    asyncio.run(bounded())


async def next_ids(chunks: AsyncIterator[bytes], number: int) -> list[UUID]:
    """Return the ids of the next events, over any number of chunks."""
    ids: list[UUID] = []
    while len(ids) < number:
        lines = (await anext(chunks)).decode().splitlines()
        ids += [UUID(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    return ids


def open_stream(streams: EventStreams, source: Feed, place: Place = EVERYWHERE) -> AsyncIterator[bytes]:
    return streams.stream(source.read("now"), source.read, "all", place, reviews=False)


def test_streams_at_the_same_place_share_their_reads(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with streaming(engine) as (streams, polls, source):
            opened = [open_stream(streams, source) for _ in range(20)]
            for chunks in opened:
                await anext(chunks)
                await anext(chunks)
            source.reads = 0
            waiting = [asyncio.create_task(next_ids(chunks, 7)) for chunks in opened]
            await asyncio.sleep(0.1)
            added = source.add(7)
            polls.notify()
            for received in await asyncio.gather(*waiting):
                assert received == added
            assert source.reads <= 6  # three pages, though a stream may come late to a read

    run(scenario)


def test_a_silent_stream_sends_comments_and_ends_after_its_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(event_streams, "LONGEST_SECONDS", 0.3)

    async def scenario() -> None:
        async with streaming(engine) as (streams, _, source):
            first, start, *rest = [chunk async for chunk in open_stream(streams, source)]
            assert first == b"retry: 1000\n\n"
            assert start.startswith(b"id: ")
            assert len(rest) >= 2
            assert set(rest) == {b": heartbeat\n\n"}

    run(scenario)


def test_an_outage_of_the_database_delays_a_stream(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "OUTAGE_SECONDS", 0.05)

    async def scenario() -> None:
        async with streaming(engine) as (streams, polls, source):
            chunks = open_stream(streams, source)
            await anext(chunks)
            source.errors = [OperationalError("SELECT", {}, Exception("down"))] * 2
            added = source.add(5)
            polls.notify()
            assert await next_ids(chunks, 5) == added

    run(scenario)


def test_a_lost_cursor_ends_a_stream_with_a_problem(engine: Engine) -> None:
    async def scenario() -> None:
        async with streaming(engine) as (streams, polls, source):
            chunks = open_stream(streams, source)
            await anext(chunks)
            source.errors = [Refused(Code.CURSOR_EXPIRED, "Gone.", resume_after="abc")]
            source.add()
            polls.notify()
            *_, last = [chunk async for chunk in chunks]
            assert last.startswith(b"event: problem\ndata: {")
            assert b'"code": "cursor_expired"' in last
            assert b'"resume_after": "abc"' in last

    run(scenario)


def test_events_of_other_places_only_move_the_cursor(engine: Engine) -> None:
    async def scenario() -> None:
        async with streaming(engine) as (streams, polls, source):
            chunks = open_stream(streams, source, Place("line-2", None))
            await anext(chunks)
            start = await anext(chunks)
            source.add()
            polls.notify()
            moved = await anext(chunks)
            assert moved.startswith(b"id: ")
            assert b"data" not in moved
            assert moved != start

    run(scenario)


def test_a_stream_ends_when_the_process_does(engine: Engine) -> None:
    async def scenario() -> None:
        async with streaming(engine) as (streams, polls, source):
            chunks = open_stream(streams, source)
            await anext(chunks)
            rest = asyncio.create_task(next_ids(chunks, 1))
            await asyncio.sleep(0.1)
            polls.answer_all()
            with pytest.raises(StopAsyncIteration):
                await rest

    run(scenario)


def test_further_streams_are_refused(engine: Engine) -> None:
    async def scenario() -> None:
        async with streaming(engine) as (streams, _, __):
            with streams.slot():
                with streams.slot(), pytest.raises(Refused, match="2 streams are open"), streams.slot():
                    pass
                with streams.slot():
                    pass

    run(scenario)
