"""`/v1/results`: the feed of final inspections, and the consumers whose cursor is kept here."""

import asyncio
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from api.context import Context, Services
from api.fields import Label, Limit, RecipeName, Wait
from api.problems import refuses
from api.schemas import Consumer, ConsumerList, FeedPage
from core import consumers, feed
from core.documents import feed_items
from core.errors import Code, Refused

router = APIRouter(prefix="/v1/results", tags=["results"])

_LOST = (Code.INVALID_CURSOR, Code.CURSOR_EPOCH, Code.CURSOR_EXPIRED)
_AFTER = "the `next_cursor` of the page before; `now` for what comes from now on; without it the oldest entry kept"
_CONSUMER = "instead of `after`: read on from where this consumer has acknowledged"


class _Feed(BaseModel):
    """What of the feed is asked for."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[str | None, Query(description=_AFTER)] = None
    consumer: Annotated[Label | None, Query(description=_CONSUMER)] = None
    recipe: RecipeName | None = None
    include: Annotated[
        Literal["reviews"] | None, Query(description="`reviews` repeats an inspection whenever it is reviewed")
    ] = None
    limit: Limit = 100
    wait: Wait = 0


@router.get("", responses=refuses(Code.RECIPE_UNKNOWN, *_LOST))
async def read(asked: Annotated[_Feed, Query()], services: Context) -> FeedPage:
    """Every final inspection (completed, failed or cancelled) once, in an order that never changes and never skips.

    Keep `next_cursor`, or the `cursor` of the item that you are done with, and ask with `after` for what came since.
    With `wait` an empty page is held back until there is something, for so many seconds at most. An answer 410 carries
    `resume_after`, from where to go on.
    """
    if asked.after is not None and asked.consumer is not None:
        raise Refused(Code.INVALID_FIELD, "after, consumer: give one of them, not both.")
    give_up = time.monotonic() + asked.wait
    page, newest = await asyncio.to_thread(_page, services, asked, asked.after)
    while not page.items and (left := give_up - time.monotonic()) > 0:
        async with services.waiters.expecting("feed", str(newest)) as more:
            page, newest_now = await asyncio.to_thread(_page, services, asked, page.next_cursor)
            if not page.items and newest_now == newest:
                await _within(more, left)
            newest = newest_now
    return page


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _page(services: Services, asked: _Feed, after: str | None) -> tuple[FeedPage, int]:
    """One page behind a place, and the number that the feed reaches to."""
    state = _state(services)
    with services.transaction() as connection:
        kept = consumers.find(connection, asked.consumer) if asked.consumer is not None and after is None else None
        place = feed.check(connection, state, kept.cursor) if kept else feed.start(connection, state, after)
        page = feed.read(
            connection, state, place, limit=asked.limit, recipe=asked.recipe, reviews=asked.include == "reviews"
        )
        items = feed_items(connection, page)
    return FeedPage(items=items, next_cursor=str(page.following)), state.newest


def _state(services: Services) -> feed.State:
    """How far the feed reaches, committed: what is read behind it may be refused."""
    with services.transaction() as connection:
        return feed.number(connection)


class _Acknowledgement(BaseModel):
    """How far a consumer is: a cursor of an item or of a page, or `now` for the end of the feed."""

    model_config = ConfigDict(extra="forbid")

    consumer: Label
    cursor: str


@router.post("/acknowledge", responses=refuses(*_LOST))
def acknowledge(done: _Acknowledgement, services: Context) -> Consumer:
    """Note that a consumer is done with everything up to a cursor; `GET /v1/results?consumer=` goes on from there.

    The first acknowledgement makes the consumer; until then it reads from the oldest entry. One of less than was
    acknowledged before changes nothing, so it may be repeated.
    """
    state = _state(services)
    with services.transaction() as connection:
        return Consumer.of_state(consumers.acknowledge(connection, state, done.consumer, done.cursor), state)


@router.get("/consumers")
def list_consumers(services: Context) -> ConsumerList:
    """All consumers, and how many entries each of them is behind."""
    state = _state(services)
    with services.transaction() as connection:
        return ConsumerList(items=[Consumer.of_state(one, state) for one in consumers.list_all(connection)])


@router.delete("/consumers/{name}", status_code=204)
def forget(name: Label, services: Context) -> None:
    """Forget a consumer."""
    with services.transaction() as connection:
        consumers.forget(connection, name)
