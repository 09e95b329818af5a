"""The audit log: who changed what, and when. It is append-only and written in the transaction of the change."""

from typing import Any

from sqlalchemy import Connection, insert

from core.tables import audit_events


def record(connection: Connection, *, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Record a change, for example `record(…, actor="key:mes", action="model.activated", subject="recipe:bottle")`."""
    connection.execute(insert(audit_events).values(actor=actor, action=action, subject=subject, detail=detail))
