"""Legal holds: while a hold on a lot or a part is active, its inspections, reviews and images are not removed."""

import datetime as dt
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.sql.functions import now

from core import removal_lock
from core.access import audit
from core.errors import Code, Refused
from core.retention.tables import legal_holds

State = Literal["active", "released"]


@dataclass(frozen=True)
class Hold:
    """A hold on a lot or on a part, of all recipes.

    Attributes:
        actor, reason: who set it, and why.
        released_by, release_reason: who ended it, and why; None while it is active.
    """

    id: UUID
    lot_id: str | None
    part_id: str | None
    reason: str
    actor: str
    created_at: dt.datetime
    released_at: dt.datetime | None
    released_by: str | None
    release_reason: str | None

    @property
    def subject(self) -> str:
        """What is held, as the audit log names it."""
        return f"part:{self.part_id}" if self.lot_id is None else f"lot:{self.lot_id}"


def add(connection: Connection, *, lot_id: str | None, part_id: str | None, reason: str, actor: str) -> Hold:
    """Set a hold on a lot or a part. Once it is committed, nothing of it is removed.

    Raises:
        Refused: INVALID_FIELD unless exactly one of both is named.
    """
    if (lot_id is None) == (part_id is None):
        raise Refused(Code.INVALID_FIELD, "lot_id: name either a lot_id or a part_id.")
    removal_lock.share(connection)
    row = connection.execute(
        insert(legal_holds).values(lot_id=lot_id, part_id=part_id, reason=reason, actor=actor).returning(*legal_holds.c)
    ).one()
    hold = Hold(**row._mapping)
    subject = f"legal_hold:{hold.id}"
    audit.record(connection, actor=actor, action="legal_hold.set", subject=subject, of=hold.subject, reason=reason)
    return hold


def get(connection: Connection, hold_id: UUID) -> Hold:
    """Return a hold.

    Raises:
        Refused: NOT_FOUND.
    """
    row = connection.execute(select(legal_holds).where(legal_holds.c.id == hold_id)).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"There is no legal hold {hold_id}.")
    return Hold(**row._mapping)


def list_page(
    connection: Connection,
    *,
    state: State | None,
    lot_id: str | None = None,
    part_id: str | None = None,
    before: UUID | None,
    limit: int,
) -> tuple[list[Hold], UUID | None]:
    """Return one page of holds, newest first, and the `before` of the next page, or None at the end.

    Args:
        lot_id, part_id: only holds on this lot or on this part; if both are named, on either.
    """
    query = select(legal_holds).order_by(legal_holds.c.id.desc()).limit(limit + 1)
    named = ((legal_holds.c.lot_id, lot_id), (legal_holds.c.part_id, part_id))
    subjects = [column == value for column, value in named if value is not None]
    if subjects:
        query = query.where(or_(*subjects))
    if state == "active":
        query = query.where(legal_holds.c.released_at.is_(None))
    elif state == "released":
        query = query.where(legal_holds.c.released_at.is_not(None))
    if before is not None:
        query = query.where(legal_holds.c.id < before)
    holds = [Hold(**row._mapping) for row in connection.execute(query)]
    return holds[:limit], holds[limit - 1].id if len(holds) > limit else None


def release(connection: Connection, hold_id: UUID, *, reason: str, actor: str) -> Hold:
    """End a hold. What it kept goes by the policies of the recipes, unless another hold keeps it.

    Raises:
        Refused: NOT_FOUND; INVALID_TRANSITION if it was released before.
    """
    released = connection.execute(
        update(legal_holds)
        .where(legal_holds.c.id == hold_id, legal_holds.c.released_at.is_(None))
        .values(released_at=now(), released_by=actor, release_reason=reason)
        .returning(legal_holds.c.id)
    ).one_or_none()
    hold = get(connection, hold_id)
    if released is None:
        raise Refused(Code.INVALID_TRANSITION, f"Legal hold {hold_id} was released before.")
    audit.record(
        connection,
        actor=actor,
        action="legal_hold.released",
        subject=f"legal_hold:{hold_id}",
        of=hold.subject,
        reason=reason,
    )
    return hold
