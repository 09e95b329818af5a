"""Sessions: a person signs in with an API key, and the browser then holds a random token instead of the key.

A session may do what its key may do, and ends with it. Only the SHA-256 of the token is stored.
"""

import base64
import datetime as dt
import hashlib
import hmac
import secrets
from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal, select, text, update
from sqlalchemy.sql.functions import now

from core.access import audit, keys
from core.access.keys import Key
from core.access.tables import api_keys, sessions
from core.tables import Timestamp

IDLE = dt.timedelta(hours=12)
"""A session ends when it has not been used for this long."""
LIFETIME = dt.timedelta(days=7)
"""A session ends this long after the sign-in, however often it is used."""


@dataclass(frozen=True)
class Session:
    """A session without its token.

    Attributes:
        expires_at: when it ends if it is not used until then; accurate to about a minute.
    """

    id: int
    key: Key
    expires_at: dt.datetime

    @property
    def has_ended(self) -> bool:
        """Whether the session has ended, by the clock of this machine. Its key may end it earlier."""
        return self.expires_at <= dt.datetime.now(dt.UTC)


def csrf_token(token: str) -> str:
    """Return the text that requests of a session must repeat in a header. Other origins cannot read it.

    It is derived from the token of the session, which cannot be computed from it.
    """
    return base64.urlsafe_b64encode(hmac.digest(token.encode(), b"csrf", hashlib.sha256)).decode().rstrip("=")


def create(connection: Connection, key: Key, *, address: str) -> tuple[Session, str]:
    """Start a session of a key. Returns it and its token, which cannot be recovered later.

    Args:
        address: the address of the client, for the audit log.
    """
    token = secrets.token_urlsafe(32)
    row = connection.execute(
        insert(sessions)
        .values(
            token_sha256=keys.digest(token), key_id=key.id, expires_at=_end(now(), literal(key.expires_at, Timestamp))
        )
        .returning(sessions.c.id, sessions.c.expires_at)
    ).one()
    audit.record(connection, actor=key.actor, action="session.created", subject=f"session:{row.id}", address=address)
    return Session(row.id, key, row.expires_at), token


def find(connection: Connection, token: str) -> Session | None:
    """Return the session with this token, or None if there is none, it has ended, or its key was revoked."""
    columns = [api_keys.c[field.name].label(f"key_{field.name}") for field in fields(Key)]
    row = connection.execute(
        select(sessions.c.id, sessions.c.expires_at, *columns)
        .join(api_keys, api_keys.c.id == sessions.c.key_id)
        .where(
            sessions.c.token_sha256 == keys.digest(token),
            sessions.c.expires_at > now(),
            api_keys.c.revoked_at.is_(None),
        )
    ).one_or_none()
    if row is None:
        return None
    key = Key(**{field.name: row._mapping[f"key_{field.name}"] for field in fields(Key)})
    return Session(row.id, key, row.expires_at)


def note_use(connection: Connection, session_id: int) -> None:
    """Set the time of the last use of a session to now, so that it ends later. One that has ended stays ended."""
    connection.execute(
        update(sessions)
        .where(sessions.c.id == session_id, sessions.c.expires_at > now(), api_keys.c.id == sessions.c.key_id)
        .values(last_used_at=now(), expires_at=_end(sessions.c.created_at, api_keys.c.expires_at))
    )


def end(connection: Connection, token: str) -> None:
    """End the session with this token, if there is one."""
    row = connection.execute(
        delete(sessions)
        .where(sessions.c.token_sha256 == keys.digest(token), api_keys.c.id == sessions.c.key_id)
        .returning(sessions.c.id, api_keys.c.prefix)
    ).one_or_none()
    if row is not None:
        audit.record(connection, actor=keys.actor_of(row.prefix), action="session.deleted", subject=f"session:{row.id}")


def delete_ended(connection: Connection, *, at_most: int) -> int:
    """Delete sessions that have ended; returns how many."""
    return connection.execute(
        text("""
            DELETE FROM sessions USING (
                SELECT id FROM sessions WHERE expires_at <= now()
                ORDER BY expires_at LIMIT :at_most FOR UPDATE SKIP LOCKED
            ) AS ended WHERE sessions.id = ended.id
        """),
        {"at_most": at_most},
    ).rowcount


def _end(
    created_at: ColumnElement[dt.datetime], key_expires_at: ColumnElement[dt.datetime | None]
) -> ColumnElement[dt.datetime]:
    """Return when a session that is used now ends. PostgreSQL's LEAST ignores nulls."""
    return func.least(now() + IDLE, created_at + LIFETIME, key_expires_at)
