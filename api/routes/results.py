"""`/v1/results`: the feed of final inspections, and its consumers, whose cursors are saved."""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict

from api.requests.parameters import Limit, Name, RecipeName, Wait
from api.responses.problems import refuses
from api.responses.schemas import Consumer, ConsumerList, FeedPage
from api.services import Context, FeedReader, Services
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


@router.get("", responses=refuses(Code.RECIPE_UNKNOWN, *_LOST))
async def read_results(request: Request, query: Annotated[_Feed, Query()], services: Context) -> FeedPage:
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
    return read.page


async def _wait_at_most(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


@dataclass(frozen=True)
class _FeedRead:
    """A page of the feed, the newest number of the feed when it was read, and the id of the queried recipe."""

    page: FeedPage
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
    state = _state(services)
    with services.transaction() as connection:
        recipe_id = None if query.recipe is None else recipes.get(connection, query.recipe).id
        page = feed.read(
            connection,
            state,
            feed.start_cursor(connection, state, after),
            limit=query.limit,
            recipe_id=recipe_id,
            reviews=query.include == "reviews",
            from_oldest=after is None,
        )
        items = feed_items(connection, page)
    return _FeedRead(FeedPage(items=items, next_cursor=str(page.next_cursor)), state.newest, recipe_id)


def _state(services: Services) -> feed.State:
    """Number new entries, in a separate transaction: a read that fails later does not undo it."""
    with services.transaction() as connection:
        return feed.number_entries(connection)


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
