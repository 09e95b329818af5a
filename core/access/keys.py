"""API keys: `lw_<prefix>_<secret>`. A key is shown once; what is stored is its prefix and the hash of the whole."""

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.sql.functions import now

from core.access import audit
from core.errors import Code, Refused
from core.tables import api_keys

SCOPES = ("submit", "read", "admin")


@dataclass(frozen=True)
class Key:
    """A key as it may be shown: never its secret.

    Attributes:
        last_used_at: to the minute, or so.
        requests_per_minute: how many it may make; None for any number.
    """

    id: int
    name: str
    prefix: str
    scopes: list[str]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    last_used_at: dt.datetime | None
    revoked_at: dt.datetime | None
    requests_per_minute: int | None

    def allows(self, scope: str) -> bool:
        """Whether the key carries a scope; `admin` carries all."""
        return scope in self.scopes or "admin" in self.scopes

    def check_not_expired(self) -> None:
        """Refuse the key from the moment on at which it expires."""
        if self.expires_at is not None and self.expires_at <= dt.datetime.now(dt.UTC):
            raise Refused(
                Code.UNAUTHENTICATED,
                f"The API key {self.prefix!r} expired at {self.expires_at.isoformat(timespec='seconds')}. "
                "Ask for a new one (`linewatch keys create`).",
            )


_SHOWN = [api_keys.c[one.name] for one in fields(Key)]


def _digest(key: str) -> bytes:
    # A key holds 256 random bits, so a plain hash withstands guessing; a slow one would only slow the api down.
    return hashlib.sha256(key.encode()).digest()


def create(
    connection: Connection,
    name: str,
    scopes: Sequence[str],
    *,
    actor: str,
    expires_at: dt.datetime | None = None,
    requests_per_minute: int | None = None,
) -> tuple[Key, str]:
    """A new key, and its text, which cannot be had again; refuses wrong scopes, a blank
    name and what would never be of use."""
    wrong = sorted(set(scopes) - set(SCOPES))
    if wrong or not scopes:
        raise Refused(Code.INVALID_FIELD, f"Scopes are {', '.join(SCOPES)}; not {', '.join(wrong) or 'none'}.")
    if expires_at is not None and expires_at <= dt.datetime.now(dt.UTC):
        raise Refused(Code.INVALID_FIELD, f"The key would have expired already, at {expires_at.isoformat()}.")
    if requests_per_minute is not None and requests_per_minute < 1:
        raise Refused(Code.INVALID_FIELD, "A key's rate is at least one request a minute; without one it is not bound.")
    name = name.strip()
    if not name:
        raise Refused(Code.INVALID_FIELD, "A key needs a name that says who or what will use it.")
    prefix = secrets.token_hex(6)
    key = f"lw_{prefix}_{secrets.token_urlsafe(32)}"
    row = connection.execute(
        insert(api_keys)
        .values(
            name=name,
            prefix=prefix,
            secret_sha256=_digest(key),
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            requests_per_minute=requests_per_minute,
        )
        .returning(*_SHOWN)
    ).one()
    audit.record(
        connection,
        actor=actor,
        action="key.created",
        subject=f"key:{prefix}",
        scopes=sorted(set(scopes)),
        expires_at=expires_at.isoformat() if expires_at else None,
        requests_per_minute=requests_per_minute,
    )
    return Key(**row._mapping), key


def list_all(connection: Connection) -> list[Key]:
    return [Key(**row._mapping) for row in connection.execute(select(*_SHOWN).order_by(api_keys.c.id))]


def revoke(connection: Connection, prefix: str, *, actor: str) -> Key:
    """Revoke the key with this prefix; refuses an unknown one. Revoking twice changes nothing."""
    connection.execute(
        update(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None)).values(revoked_at=now())
    )
    row = connection.execute(select(*_SHOWN).where(api_keys.c.prefix == prefix)).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"There is no key with the prefix {prefix!r}; see `linewatch keys list`.")
    audit.record(connection, actor=actor, action="key.revoked", subject=f"key:{prefix}")
    return Key(**row._mapping)


def note_use(connection: Connection, key_id: int) -> None:
    """Note that a key is used now."""
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now()))


def find(connection: Connection, key: str) -> Key | None:
    """The key of this text, if it is one of ours and not revoked; it may have expired.

    The comparison takes constant time.
    """
    marker, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if marker != "lw" or not prefix or not secret:
        return None
    row = connection.execute(
        select(*_SHOWN, api_keys.c.secret_sha256).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_sha256, _digest(key)):
        return None
    return Key(**{name: value for name, value in row._mapping.items() if name != "secret_sha256"})
