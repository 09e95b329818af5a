"""The typed responses about reviews: the review queue, its progress, and the list of all reviews."""

import datetime as dt
from uuid import UUID

from linewatch.types.base import Result
from linewatch.types.results import Inspection


class WaitingInspection(Inspection, frozen=True):
    """An inspection that waits for a person. Its `reviews` are not shown.

    Attributes:
        waits_for: `review` (the machine's verdict), `failure` (it has no verdict), `second_review` (another person has
            reviewed it, and the recipe asks for a second review) or `disagreement` (reviewers disagree).
    """

    waits_for: str


class ReviewQueuePage(Result, frozen=True):
    """One page of the review queue."""

    items: list[WaitingInspection]
    next_cursor: str | None


class Count(Result, frozen=True):
    """A number; there are more unless it is `exact`."""

    count: int
    exact: bool


class ReviewerProgress(Result, frozen=True):
    """The number of reviews of a person that were not retracted."""

    reviewer: str
    reviewed: int


class ReviewProgress(Result, frozen=True):
    """How much waits for a person, and how much was reviewed `since`, in all and by person."""

    waiting: Count
    since: dt.datetime
    reviewed: Count
    reviewers: list[ReviewerProgress]


class ListedReview(Result, frozen=True):
    """A review in the list of all reviews.

    Attributes:
        verdict, machine_verdict: the person's and the machine's.
        recipe, part_id, machine_verdict: null also if the inspection was removed.
        retracted_at: null if the review counts.
        is_waiting: whether the inspection waits for a person, for example for a second review.
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


class ReviewPage(Result, frozen=True):
    """One page of reviews."""

    items: list[ListedReview]
    next_cursor: str | None
