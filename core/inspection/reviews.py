"""Reviews: a person overrules a verdict, giving a name and a reason. The machine's verdict is never changed."""

from uuid import UUID

from sqlalchemy import Connection, insert, text

from core.access import audit
from core.errors import Code, Refused
from core.feed import events, feed
from core.feed.events import Callback, Event, EventType
from core.inspection import inspections
from core.inspection.inspections import Inspection
from core.models.verdicts import Verdict
from core.tables import reviews


def add(
    connection: Connection, inspection_id: UUID, *, verdict: Verdict, reviewer: str, reason: str, actor: str
) -> Inspection:
    """Insert a review, with an event and a feed entry; returns the inspection. The newest review counts.

    Raises:
        Refused: the inspection is unknown, not final or cancelled.
    """
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
    row = connection.execute(
        text("SELECT recipe_id, callback_endpoint_id, callback_url FROM inspections WHERE id = :id"),
        {"id": inspection_id},
    ).one()
    feed.append(connection, [(inspection_id, row.recipe_id)], "reviewed")
    callback = Callback(row.callback_endpoint_id, row.callback_url) if row.callback_endpoint_id else None
    events.emit(connection, [Event(EventType.INSPECTION_REVIEWED, str(inspection_id), [row.recipe_id], callback)])
    return inspections.get(connection, inspection_id)
