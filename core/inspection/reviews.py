"""Reviews: a person overrules a verdict, giving a name and a reason. The machine's verdict is never changed.

Reviews are append-only. To undo one, a retraction is added, within a short time and by the same person.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, insert, select, text

from core.access import audit
from core.errors import Code, Refused
from core.feed import events, feed
from core.feed.events import Callback, Event, EventType
from core.inspection import inspections, review_queue
from core.inspection.inspections import Inspection
from core.models import recipes
from core.models.verdicts import Verdict
from core.partitions import first_id_of
from core.tables import inspections as inspections_table
from core.tables import recipes as recipes_table
from core.tables import review_queue as waiting
from core.tables import review_retractions, reviews

RETRACTABLE_FOR = dt.timedelta(minutes=10)
"""A review can be retracted for this long."""

_LOCK = 0x4C57_0005  # an advisory lock for each inspection, so that each change sees all earlier ones


@dataclass(frozen=True)
class ListedReview:
    """A review in the list of all reviews, with what it was about.

    Attributes:
        recipe: None if the inspection was removed before recipes were recorded.
        part_id, machine_verdict: of the inspection; None also if it was removed.
        retracted_at: None if the review counts.
        is_waiting: whether its inspection waits for a person, for example for a second review.
    """

    id: UUID
    inspection_id: UUID
    recipe: str | None
    part_id: str | None
    machine_verdict: Verdict | None
    verdict: Verdict
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime
    retracted_at: dt.datetime | None
    is_waiting: bool


def add(
    connection: Connection, inspection_id: UUID, *, verdict: Verdict, reviewer: str, reason: str, actor: str
) -> Inspection:
    """Insert a review, with an event and a feed entry; returns the inspection.

    `core.models.verdicts.reviewed_verdict` says what the reviews of an inspection decide.

    Raises:
        Refused: the inspection is unknown, not final or cancelled.
    """
    _lock(connection, inspection_id)
    inspection = inspections.get(connection, inspection_id)
    if inspection.status not in ("completed", "failed"):
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Inspection {inspection_id} is {inspection.status}; only completed or failed ones can be reviewed.",
        )
    connection.execute(
        insert(reviews).values(
            inspection_id=inspection_id, verdict=verdict, reviewer=reviewer, reason=reason, actor=actor
        )
    )
    audit.record(
        connection,
        actor=actor,
        action="inspection.reviewed",
        subject=f"inspection:{inspection_id}",
        before=inspection.effective_verdict,
        verdict=verdict,
        reviewer=reviewer,
        reason=reason,
    )
    return _announce(connection, inspection_id)


def retract(connection: Connection, inspection_id: UUID, review_id: UUID, *, reviewer: str, actor: str) -> Inspection:
    """Undo a review: it counts no longer. Emits the same event and feed entry as a review; returns the inspection.

    Retracting a review again changes nothing.

    Raises:
        Refused: NOT_FOUND; FORBIDDEN for the review of another person or API key; INVALID_TRANSITION after
            `RETRACTABLE_FOR`.
    """
    _lock(connection, inspection_id)
    before = inspections.get(connection, inspection_id)
    review = connection.execute(
        select(reviews, (text("clock_timestamp()") - reviews.c.created_at).label("age")).where(
            reviews.c.id == review_id, reviews.c.inspection_id == inspection_id
        )
    ).one_or_none()
    if review is None:
        raise Refused(Code.NOT_FOUND, f"Inspection {inspection_id} has no review {review_id}.")
    if (review.actor, review.reviewer) != (actor, reviewer):
        raise Refused(
            Code.FORBIDDEN, "Only the reviewer who added this review can retract it, with the same API key and name."
        )
    if all(standing.id != review_id for standing in before.reviews):
        return before
    if review.age > RETRACTABLE_FOR:
        minutes = RETRACTABLE_FOR // dt.timedelta(minutes=1)
        raise Refused(
            Code.INVALID_TRANSITION,
            f"A review can be retracted for {minutes} minutes only. Add another review to the inspection instead.",
        )
    connection.execute(insert(review_retractions).values(review_id=review_id, actor=actor))
    audit.record(
        connection,
        actor=actor,
        action="review.retracted",
        subject=f"inspection:{inspection_id}",
        before=before.effective_verdict,
        review=str(review_id),
        verdict=review.verdict,
        reviewer=reviewer,
    )
    return _announce(connection, inspection_id)


def _lock(connection: Connection, inspection_id: UUID) -> None:
    """Lock the reviews of an inspection until the transaction ends."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(:kind, hashtext(:id))"), {"kind": _LOCK, "id": str(inspection_id)}
    )


def _announce(connection: Connection, inspection_id: UUID) -> Inspection:
    """Update the review queue, the feed and the webhooks after a change of the reviews; returns the inspection."""
    inspection = inspections.get(connection, inspection_id)
    row = connection.execute(
        text("SELECT recipe_id, callback_endpoint_id, callback_url FROM inspections WHERE id = :id"),
        {"id": inspection_id},
    ).one()
    review_queue.update(connection, inspection, row.recipe_id)
    feed.append(connection, [(inspection_id, row.recipe_id)], "reviewed")
    callback = Callback(row.callback_endpoint_id, row.callback_url) if row.callback_endpoint_id else None
    events.emit(connection, [Event(EventType.INSPECTION_REVIEWED, str(inspection_id), [row.recipe_id], callback)])
    return inspection


# An id is generated later than `created_at`, which is the start of the transaction, but within this time.
_LONGEST_TRANSACTION = dt.timedelta(minutes=5)


def list_page(
    connection: Connection,
    *,
    recipe: str | None = None,
    reviewer: str | None = None,
    since: dt.datetime | None = None,
    until: dt.datetime | None = None,
    before: UUID | None,
    limit: int,
) -> tuple[list[ListedReview], UUID | None]:
    """Return one page of all reviews, newest first, and the `before` of the next page, or None at the end.

    Retracted reviews are included. Refuses an unknown recipe.

    Args:
        reviewer: exactly this name.
        since, until: inclusive and exclusive limits of `created_at`.
    """
    conditions: list[ColumnElement[bool]] = []
    if recipe is not None:
        conditions.append(reviews.c.recipe_id == recipes.get(connection, recipe).id)
    if reviewer is not None:
        conditions.append(reviews.c.reviewer == reviewer)
    if since is not None:
        conditions += [reviews.c.id >= first_id_of(since), reviews.c.created_at >= since]
    if until is not None:
        conditions += [reviews.c.id < first_id_of(until + _LONGEST_TRANSACTION), reviews.c.created_at < until]
    if before is not None:
        conditions.append(reviews.c.id < before)
    page = select(reviews).where(*conditions).order_by(reviews.c.id.desc()).limit(limit + 1).subquery("review")
    rows = connection.execute(_listed(page)).all()
    items = [ListedReview(**row._mapping) for row in rows[:limit]]
    return items, items[-1].id if len(rows) > limit else None


def _listed(review: Any) -> Any:
    """Select the columns of `ListedReview` for a page of reviews."""
    columns = (
        review.c[name] for name in ("id", "inspection_id", "verdict", "reviewer", "reason", "actor", "created_at")
    )
    return (
        select(
            *columns,
            recipes_table.c.name.label("recipe"),
            inspections_table.c.part_id,
            inspections_table.c.verdict.label("machine_verdict"),
            review_retractions.c.created_at.label("retracted_at"),
            waiting.c.inspection_id.is_not(None).label("is_waiting"),
        )
        .select_from(review)
        .join(recipes_table, recipes_table.c.id == review.c.recipe_id, isouter=True)
        .join(inspections_table, inspections_table.c.id == review.c.inspection_id, isouter=True)
        .join(review_retractions, review_retractions.c.review_id == review.c.id, isouter=True)
        .join(waiting, waiting.c.inspection_id == review.c.inspection_id, isouter=True)
        .order_by(review.c.id.desc())
    )
