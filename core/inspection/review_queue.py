"""The review queue: the inspections that wait for a person.

A trigger adds an inspection when it gets the verdict `review` or fails; `core.inspection.reviews` calls `update` after
each change of its reviews. So reading the queue costs what is in it, not what was ever inspected.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert as upsert

from core.inspection import inspections
from core.inspection.inspections import Inspection
from core.inspection.review_decisions import IS_STANDING, reviewer_key
from core.models import recipes
from core.partitions import first_id_of
from core.tables import review_queue, reviews

MAX_COUNTED = 10_000
"""The most waiting inspections, and the most reviews, that `progress` counts."""

WaitsFor = Literal["review", "failure", "second_review", "disagreement"]
"""Why an inspection waits: the machine's verdict is `review`; it failed; one person has reviewed it, and the recipe
asks for a second review; or the reviewers disagree."""


@dataclass(frozen=True)
class Waiting:
    """A waiting inspection. Do not show its reviews: the next reviewer must not know them."""

    inspection: Inspection
    waits_for: WaitsFor


@dataclass(frozen=True)
class Count:
    """A number of rows; the true one is larger unless it is `exact`."""

    count: int
    exact: bool


@dataclass(frozen=True)
class Progress:
    """How much waits, and how much was reviewed since a moment.

    Attributes:
        by_reviewer: numbers of reviews, the highest first.
    """

    waiting: Count
    reviewed: Count
    by_reviewer: dict[str, int]


def waits_for(inspection: Inspection) -> WaitsFor | None:
    """Return why an inspection waits for a person, or None if it does not."""
    if inspection.status == "failed" and not inspection.reviews:
        return "failure"
    if inspection.effective_verdict != "review":
        return None
    reviewers = {review.reviewer.casefold() for review in inspection.reviews}
    return ("review", "second_review", "disagreement")[min(len(reviewers), 2)]


def update(connection: Connection, inspection: Inspection, recipe_id: int) -> None:
    """Add an inspection to the queue, or remove it. Call it after each change of its reviews."""
    if waits_for(inspection) is None:
        connection.execute(delete(review_queue).where(review_queue.c.inspection_id == inspection.id))
    else:
        entry = upsert(review_queue).values(inspection_id=inspection.id, recipe_id=recipe_id)
        connection.execute(entry.on_conflict_do_nothing())


def list_page(
    connection: Connection, *, recipe: str | None, reviewer: str | None, after: UUID | None, limit: int
) -> tuple[list[Waiting], UUID | None]:
    """Return one page, oldest first, and the `after` of the next page, or None at the end.

    Args:
        recipe: only this recipe. An unknown one is refused.
        reviewer: without the inspections that this person has reviewed, because they wait for somebody else.
    """
    query = select(review_queue.c.inspection_id).where(*_conditions(connection, recipe, reviewer))
    if after is not None:
        query = query.where(review_queue.c.inspection_id > after)
    ids = connection.execute(query.order_by(review_queue.c.inspection_id).limit(limit + 1)).scalars().all()
    by_id = inspections.by_ids(connection, ids[:limit])
    page = [
        Waiting(inspection, reason)
        for inspection_id in ids[:limit]
        if (inspection := by_id.get(inspection_id)) is not None and (reason := waits_for(inspection)) is not None
    ]
    return page, ids[limit - 1] if len(ids) > limit else None


def _conditions(connection: Connection, recipe: str | None, reviewer: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if recipe is not None:
        conditions.append(review_queue.c.recipe_id == recipes.get(connection, recipe).id)
    if reviewer is not None:
        is_by_reviewer = reviewer_key(reviews.c.reviewer) == reviewer_key(literal(reviewer))
        of_inspection = reviews.c.inspection_id == review_queue.c.inspection_id
        conditions.append(~select(reviews.c.id).where(of_inspection, is_by_reviewer, IS_STANDING).exists())
    return conditions


def progress(connection: Connection, *, recipe: str | None, reviewer: str | None, since: dt.datetime) -> Progress:
    """Count what waits and what was reviewed since a moment, each up to `MAX_COUNTED`.

    Args:
        recipe: only this recipe. An unknown one is refused.
        reviewer: count only what this person may review, as `list_page` does. All reviews are counted.
    """
    waiting = select(review_queue.c.inspection_id).where(*_conditions(connection, recipe, reviewer))
    number = connection.execute(
        select(func.count()).select_from(waiting.limit(MAX_COUNTED + 1).subquery())
    ).scalar_one()
    added = select(reviews.c.reviewer).where(
        IS_STANDING, reviews.c.id >= first_id_of(since), reviews.c.created_at >= since
    )
    if recipe is not None:
        added = added.where(reviews.c.recipe_id == recipes.get(connection, recipe).id)
    newest = added.order_by(reviews.c.id.desc()).limit(MAX_COUNTED + 1).subquery()
    rows = connection.execute(
        select(newest.c.reviewer, func.count().label("number"))
        .group_by(newest.c.reviewer)
        .order_by(func.count().desc(), newest.c.reviewer)
    ).all()
    return Progress(_count(number), _count(sum(row.number for row in rows)), {row.reviewer: row.number for row in rows})


def _count(number: int) -> Count:
    return Count(min(number, MAX_COUNTED), number <= MAX_COUNTED)
