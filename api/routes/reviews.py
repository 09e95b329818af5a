"""`/v1/review-queue` and `/v1/reviews`: what waits for a person, and who reviewed what."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.requests.parameters import Limit, Moment, Name, RecipeName, decode_cursor, encode_cursor
from api.responses.problems import refuses
from api.responses.reviews import ListedReview, ReviewPage, ReviewProgress, ReviewQueuePage, WaitingInspection
from api.services import Context
from core.errors import Code
from core.inspection import review_queue, reviews

router = APIRouter(prefix="/v1", tags=["reviews"])

_Reviewer = Annotated[
    Name | None, Field(description="the person who reviews; what this person has reviewed already is left out")
]


class _Queue(BaseModel):
    """The query of the review queue."""

    recipe: RecipeName | None = None
    reviewer: _Reviewer = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/review-queue", responses=refuses(Code.INVALID_CURSOR, Code.RECIPE_UNKNOWN))
def list_review_queue(query: Annotated[_Queue, Query()], services: Context) -> ReviewQueuePage:
    """List the inspections that wait for a person, oldest first.

    These are the inspections whose `effective_verdict` is `review`, and those that failed and have no review.
    """
    with services.transaction() as connection:
        items, following = review_queue.list_page(
            connection,
            recipe=query.recipe,
            reviewer=query.reviewer,
            after=decode_cursor(query.cursor),
            limit=query.limit,
        )
    return ReviewQueuePage(
        items=[WaitingInspection.of_waiting(waiting) for waiting in items], next_cursor=encode_cursor(following)
    )


class _Progress(BaseModel):
    """The query of the progress."""

    recipe: RecipeName | None = None
    reviewer: _Reviewer = None
    since: Annotated[Moment | None, Field(description="count reviews since this time; midnight UTC by default")] = None


@router.get("/review-queue/progress", responses=refuses(Code.RECIPE_UNKNOWN))
def get_review_progress(query: Annotated[_Progress, Query()], services: Context) -> ReviewProgress:
    """Get how much waits for a person, and how much each reviewer has reviewed since a time."""
    since = query.since or dt.datetime.now(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    with services.transaction() as connection:
        progress = review_queue.progress(connection, recipe=query.recipe, reviewer=query.reviewer, since=since)
    return ReviewProgress.of(progress, since)


class _Reviews(BaseModel):
    """The query of the list of reviews."""

    recipe: RecipeName | None = None
    reviewer: Annotated[Name | None, Field(description="exactly this name")] = None
    since: Moment | None = None
    until: Moment | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/reviews", responses=refuses(Code.INVALID_CURSOR, Code.RECIPE_UNKNOWN))
def list_reviews(query: Annotated[_Reviews, Query()], services: Context) -> ReviewPage:
    """List reviews, newest first, including retracted ones. `since` and `until` apply to `created_at`."""
    with services.transaction() as connection:
        items, following = reviews.list_page(
            connection,
            recipe=query.recipe,
            reviewer=query.reviewer,
            since=query.since,
            until=query.until,
            before=decode_cursor(query.cursor),
            limit=query.limit,
        )
    return ReviewPage(items=[ListedReview.of(review) for review in items], next_cursor=encode_cursor(following))
