"""`/v1/results`: the feed of final inspections, and its consumers, whose cursors are saved."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict

from api.requests.parameters import Label, Limit, Name, RecipeName, Wait
from api.responses.downloads import EventStream
from api.responses.problems import refuses
from api.responses.schemas import Consumer, ConsumerList, FeedPage
from api.services import Context, FeedReader, Services
from api.waiting.event_streams import Event, EventPage, Place
from core.documents.documents import feed_items
from core.errors import Code, Refused
from core.feed import consumers, feed
from core.models import recipes

router = APIRouter(prefix="/v1/results", tags=["results"])

DISCONNECT_CHECK_SECONDS = 2.0
"""How often to check that a waiting client is still connected."""

_LOST = (Code.INVALID_CURSOR, Code.CURSOR_EPOCH, Code.CURSOR_EXPIRED)
_AFTER = "the `next_cursor` of the previous page, or `now` for new entries only; by default the oldest stored entry"
_CONSUMER = "instead of `after`: continue after the last entry that this consumer has acknowledged"


def _not_reserved(name: str) -> str:
    if name.startswith(consumers.INTERNAL):
        raise ValueError(f"names that begin with {consumers.INTERNAL} are reserved")
    return name


ConsumerName = Annotated[Name, AfterValidator(_not_reserved)]


class _Feed(BaseModel):
    """The query parameters of the feed."""

    after: Annotated[str | None, Query(description=_AFTER)] = None
    consumer: Annotated[Name | None, Query(description=_CONSUMER)] = None
    recipe: RecipeName | None = None
    include: Annotated[
        Literal["reviews"] | None, Query(description="`reviews` repeats an inspection whenever it is reviewed")
    ] = None
    limit: Limit = 100
    wait: Wait = 0


@router.get("", response_model=FeedPage, responses=refuses(Code.RECIPE_UNKNOWN, *_LOST))
async def read_results(request: Request, query: Annotated[_Feed, Query()], services: Context) -> Response:
    """Read the feed: every final inspection (completed, failed or cancelled) once, in a fixed order without gaps.

    Save `next_cursor`, or the `cursor` of the last item that you have processed, and pass it as `after` to continue.
    With `wait`, an empty page is delayed until there is a result, for at most this many seconds. A 410 response has
    `resume_after`, the cursor to continue after.
    """
    if query.after is not None and query.consumer is not None:
        raise Refused(Code.INVALID_FIELD, "after, consumer: use only one of them.")
    feed_long_polls = services.feed_long_polls
    deadline = time.monotonic() + query.wait
    read = await feed_long_polls.in_thread(lambda: _first_page(services, query))
    while not read.page.items and (remaining := deadline - time.monotonic()) > 0 and not feed_long_polls.is_ending:
        if await request.is_disconnected():
            break
        async with feed_long_polls.expecting(
            read.newest, recipe_id=read.recipe_id, reviews=query.include == "reviews"
        ) as has_more:
            if await _wait_at_most(has_more, min(remaining, DISCONNECT_CHECK_SECONDS)):
                read = await feed_long_polls.in_thread(partial(_page, services, query, read.page.next_cursor))
    # As a response, since FastAPI would validate the page once more.
    return Response(read.page.model_dump_json(), media_type="application/json")


async def _wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


@dataclass(frozen=True)
class _FeedRead:
    """A page of the feed; whether it has as many entries as it may; the newest number of the feed; the recipe's id."""

    page: FeedPage
    is_full: bool
    newest: int
    recipe_id: int | None


def _first_page(services: Services, query: _Feed) -> _FeedRead:
    if query.consumer is None:
        return _page(services, query, query.after)
    with services.transaction() as connection:
        consumer = consumers.find(connection, query.consumer)
    return _page(services, query, None if consumer is None else str(consumer.cursor))


def _page(services: Services, query: _Feed, after: str | None) -> _FeedRead:
    """Read one page after a cursor."""
    with services.engine.connect() as connection:
        state = feed.number_and_commit(connection)
        recipe_id = None if query.recipe is None else recipes.get(connection, query.recipe).id
        page = feed.read(
            connection,
            state,
            feed.start_cursor(connection, state, after),
            limit=query.limit,
            recipe_id=recipe_id,
            reviews=query.include == "reviews",
            from_oldest=after is None or after == "oldest",
        )
        items = feed_items(connection, page)
        connection.commit()  # after a rollback, psycopg would prepare all of its statements anew
    is_full = len(page.entries) == query.limit
    return _FeedRead(FeedPage(items=items, next_cursor=str(page.next_cursor)), is_full, state.newest, recipe_id)


def _state(services: Services) -> feed.State:
    """Number new entries, in a separate transaction: a read that fails later does not undo it."""
    with services.transaction() as connection:
        return feed.number_entries(connection)


class _Stream(BaseModel):
    """The query parameters of a stream."""

    after: Annotated[str, Query(description="as for `GET /v1/results`; by default `now`")] = "now"
    recipe: RecipeName | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    include: Annotated[
        Literal["reviews"] | None, Query(description="`reviews` repeats an inspection whenever it is reviewed")
    ] = None


_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {EventStream.media_type: {"schema": {"type": "string"}}}, "description": "The events."}
}


async def _stream_slot(services: Context) -> AsyncIterator[None]:
    """Occupy a slot until the stream ends or the client disconnects."""
    with services.event_streams.slot():
        yield


@router.get(
    "/stream",
    response_class=EventStream,
    responses=_EVENTS | refuses(Code.RECIPE_UNKNOWN, Code.BUSY, *_LOST),
    dependencies=[Depends(_stream_slot)],
)
async def stream_results(
    query: Annotated[_Stream, Query()],
    services: Context,
    last_event_id: Annotated[
        str | None, Header(description="the `id` of the last event, instead of `after`: continue behind it")
    ] = None,
) -> EventStream:
    """Stream the feed as server-sent events, as it grows: nothing is missed and nothing comes twice.

    Each result is an event `inspection`, with an item of the feed as `data` and its cursor as `id`. An `id` without
    `data` only says where to continue. A comment is sent after 15 s of silence. After 5 minutes, or when the api stops,
    the stream ends: continue with `Last-Event-ID`, as browsers do by themselves. If the cursor is lost during the
    stream, an event `problem` says so, and the stream ends. 503 `busy` while the maximum number of streams is open.
    """
    feed_query = _Feed(recipe=query.recipe, include=query.include)

    def read(after: str) -> EventPage:
        page = _page(services, feed_query, after)
        events = [Event.of(item) for item in page.page.items]
        return EventPage(events, page.page.next_cursor, page.is_full, page.newest, page.recipe_id)

    first = await services.feed_long_polls.in_thread(lambda: read(last_event_id or query.after))
    events = services.event_streams.stream(
        first,
        read,
        (query.recipe, query.include),
        Place(query.line_id, query.station_id),
        reviews=query.include == "reviews",
    )
    return EventStream(events, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


class Acknowledgement(BaseModel):
    """What a consumer has processed: up to the cursor of an item or page, up to `now`, or nothing (`oldest`)."""

    model_config = ConfigDict(extra="forbid")

    consumer: ConsumerName
    cursor: str


@router.post("/acknowledge", responses=refuses(Code.FORBIDDEN, *_LOST))
def acknowledge_results(acknowledgement: Acknowledgement, services: Context, reader: FeedReader) -> Consumer:
    """Save that a consumer has processed everything up to a cursor; `GET /v1/results?consumer=` continues after it.

    The first acknowledgement creates the consumer, which belongs to your API key. Until then it reads from the oldest
    entry. Acknowledging an earlier cursor changes nothing, so you can repeat this request.
    """
    state = _state(services)
    with services.transaction() as connection:
        return Consumer.of_state(
            consumers.acknowledge(connection, state, acknowledgement.consumer, acknowledgement.cursor, reader=reader),
            state,
        )


@router.get("/consumers")
def list_consumers(services: Context, reader: FeedReader) -> ConsumerList:
    """List the consumers of your API key, and how many entries each is behind. The scope `admin` sees all consumers."""
    state = _state(services)
    with services.transaction() as connection:
        visible = consumers.list_visible(connection, reader)
        return ConsumerList(items=[Consumer.of_state(consumer, state) for consumer in visible])


@router.delete("/consumers/{name}", status_code=204, responses=refuses(Code.FORBIDDEN))
def forget_consumer(name: ConsumerName, services: Context, reader: FeedReader) -> None:
    """Delete a consumer of your API key; with the scope `admin`, any consumer."""
    with services.transaction() as connection:
        consumers.delete_consumer(connection, name, reader=reader)
