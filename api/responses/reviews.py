"""The JSON documents of reviews: the review queue, its progress, and the list of all reviews."""

import datetime as dt
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.documents.documents import Inspection
from core.inspection import review_queue, reviews
from core.inspection.review_queue import WaitsFor


class WaitingInspection(Inspection):
    """An inspection that waits for a person.

    `waits_for` says why: `review` is the machine's verdict; `failure`: it has no verdict; `second_review`: another
    person has reviewed it, and the recipe asks for a second review; `disagreement`: reviewers disagree, and a further
    one decides. `reviews` is always empty, so that a reviewer does not know what others decided.
    """

    waits_for: WaitsFor

    @classmethod
    def of_waiting(cls, waiting: review_queue.Waiting) -> Self:
        return cls(**{**dict(Inspection.of(waiting.inspection)), "reviews": []}, waits_for=waiting.waits_for)


class ReviewQueuePage(BaseModel):
    """One page of the review queue. `next_cursor` is null on the last page. A page may have less than `limit` items."""

    items: list[WaitingInspection]
    next_cursor: str | None


class Count(BaseModel):
    """A number, counted up to 10,000. If it is not `exact`, there are more."""

    count: int
    exact: bool

    @classmethod
    def of(cls, count: review_queue.Count) -> Self:
        return cls(count=count.count, exact=count.exact)


class ReviewerProgress(BaseModel):
    """The number of reviews of a person that were not retracted."""

    reviewer: str
    reviewed: int


class ReviewProgress(BaseModel):
    """How much waits for a person, and how much was reviewed `since`."""

    waiting: Count
    since: dt.datetime
    reviewed: Count = Field(description="reviews that were not retracted; if there are too many, the newest")
    reviewers: list[ReviewerProgress] = Field(description="the same reviews by person, most reviews first")

    @classmethod
    def of(cls, progress: review_queue.Progress, since: dt.datetime) -> Self:
        return cls(
            waiting=Count.of(progress.waiting),
            since=since,
            reviewed=Count.of(progress.reviewed),
            reviewers=[
                ReviewerProgress(reviewer=reviewer, reviewed=number)
                for reviewer, number in progress.by_reviewer.items()
            ],
        )


class ListedReview(BaseModel):
    """A review, with the inspection that it is about.

    `verdict` is the person's, `machine_verdict` the machine's. `retracted_at` is null if the review counts.
    `is_waiting`: whether the inspection waits for a person, for example for a second review. `recipe`, `part_id` and
    `machine_verdict` may be null if the inspection was removed.
    """

    id: UUID
    inspection_id: UUID
    recipe: str | None
    part_id: str | None
    machine_verdict: str | None
    verdict: str
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime
    retracted_at: dt.datetime | None
    is_waiting: bool

    @classmethod
    def of(cls, review: reviews.ListedReview) -> Self:
        return cls(**vars(review))


class ReviewPage(BaseModel):
    """One page of reviews. `next_cursor` is null on the last page."""

    items: list[ListedReview]
    next_cursor: str | None
