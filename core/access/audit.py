"""The audit log: who changed what, and when. It is append-only and written in the transaction of the change."""

import base64
import binascii
import datetime as dt
import struct
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, delete, func, insert, select, tuple_

from core.access.tables import audit_events
from core.errors import Code, Refused

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


@dataclass(frozen=True)
class AuditEvent:
    """A change. `detail` depends on the action; it never contains a secret."""

    id: int
    at: dt.datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class Filters:
    """Filters of a listing; None means any. `since` is inclusive, `until` exclusive."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True)
class Cursor:
    """A position in a listing: right after the event with this time and id."""

    at: dt.datetime
    id: int

    _FORM = struct.Struct(">qq")

    def __str__(self) -> str:
        """Return the text that clients send back."""
        packed = self._FORM.pack((self.at - _EPOCH) // _MICROSECOND, self.id)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the text that a client sent back.

        Raises:
            Refused: INVALID_CURSOR.
        """
        try:
            microseconds, event_id = cls._FORM.unpack(base64.b64decode(text + "==", altchars=b"-_", validate=True))
            return cls(_EPOCH + microseconds * _MICROSECOND, event_id)
        except (binascii.Error, ValueError, struct.error, OverflowError):
            raise Refused(Code.INVALID_CURSOR, "cursor: not a cursor of this listing.") from None


def record(connection: Connection, *, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Record a change, for example `record(…, actor="key:mes", action="model.activated", subject="recipe:bottle")`."""
    connection.execute(insert(audit_events).values(actor=actor, action=action, subject=subject, detail=detail))


def list_page(
    connection: Connection, filters: Filters, *, after: Cursor | None, limit: int
) -> tuple[list[AuditEvent], Cursor | None]:
    """Return one page, newest first, and the cursor of the next page, or None at the end.

    A page is read backwards from an index of the filters, time and id, so it costs the same however long the log is.
    Only with `subject` and another filter the cost grows with the events of that subject.
    """
    columns = audit_events.c
    query = select(audit_events).order_by(columns.at.desc(), columns.id.desc()).limit(limit + 1)
    for name in ("actor", "action", "subject"):
        if (value := getattr(filters, name)) is not None:
            query = query.where(columns[name] == value)
    if filters.since is not None:
        query = query.where(columns.at >= filters.since)
    if filters.until is not None:
        query = query.where(columns.at < filters.until)
    if after is not None:
        query = query.where(tuple_(columns.at, columns.id) < (after.at, after.id))
    events = [AuditEvent(**row._mapping) for row in connection.execute(query)]
    page = events[:limit]
    return page, Cursor(page[-1].at, page[-1].id) if len(events) > limit else None


def delete_old(connection: Connection, *, days: int, at_most: int) -> int:
    """Delete events that are older than `days`, the oldest first. Returns how many."""
    old = select(audit_events.c.id).where(audit_events.c.at < func.now() - dt.timedelta(days=days))
    statement = delete(audit_events).where(audit_events.c.id.in_(old.order_by(audit_events.c.at).limit(at_most)))
    return connection.execute(statement).rowcount
