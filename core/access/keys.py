"""API keys: `lw_<prefix>_<secret>`. A key is shown once; only its prefix and its SHA-256 are stored."""

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sqlalchemy import Connection, any_, delete, insert, literal, or_, select, update
from sqlalchemy.sql.functions import now

from core.access import audit
from core.access.tables import api_keys, sessions
from core.errors import Code, Refused

SCOPES = ("submit", "read", "admin")


@dataclass(frozen=True)
class Key:
    """An API key without its secret.

    Attributes:
        last_used_at: accurate to about a minute.
        requests_per_minute: the rate limit; None for no limit.
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

    @property
    def actor(self) -> str:
        """The name of the key in the audit log, in reviews and so on."""
        return actor_of(self.prefix)

    def allows(self, scope: str) -> bool:
        """Return whether the key has a scope; `admin` includes all."""
        return scope in self.scopes or "admin" in self.scopes

    def check_not_expired(self) -> None:
        """Raise Refused (UNAUTHENTICATED) if the key has expired."""
        if self.expires_at is not None and self.expires_at <= dt.datetime.now(dt.UTC):
            raise Refused(
                Code.UNAUTHENTICATED,
                f"The API key {self.prefix!r} expired at {self.expires_at.isoformat(timespec='seconds')}. "
                "Ask for a new one (`linewatch keys create`).",
            )


_COLUMNS = [api_keys.c[field.name] for field in fields(Key)]


def actor_of(prefix: str) -> str:
    """Return the actor of the key with this prefix."""
    return f"key:{prefix}"


def digest(key: str) -> bytes:
    """Return the hash by which keys are stored and compared."""
    # A key holds 256 random bits, so nobody can guess it from a plain hash. A slow hash would only slow the API down.
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
    """Create a key. Returns it and its text, which cannot be recovered later.

    Raises:
        Refused: INVALID_FIELD for no or unknown scopes, a blank name, an expiry in the past, or a rate below 1.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise Refused(Code.INVALID_FIELD, f"Scopes are {', '.join(SCOPES)}; not {', '.join(unknown) or 'none'}.")
    if expires_at is not None and expires_at <= dt.datetime.now(dt.UTC):
        raise Refused(Code.INVALID_FIELD, f"The expiry time {expires_at.isoformat()} is in the past.")
    if requests_per_minute is not None and requests_per_minute < 1:
        raise Refused(Code.INVALID_FIELD, "The rate must be at least one request per minute. Omit it for no limit.")
    name = name.strip()
    if not name:
        raise Refused(Code.INVALID_FIELD, "A key needs a name, for example that of the system that will use it.")
    prefix = secrets.token_hex(6)
    key = f"lw_{prefix}_{secrets.token_urlsafe(32)}"
    row = connection.execute(
        insert(api_keys)
        .values(
            name=name,
            prefix=prefix,
            secret_sha256=digest(key),
            scopes=sorted(set(scopes)),
            expires_at=expires_at,
            requests_per_minute=requests_per_minute,
        )
        .returning(*_COLUMNS)
    ).one()
    audit.record(
        connection,
        actor=actor,
        action="key.created",
        subject=actor_of(prefix),
        scopes=sorted(set(scopes)),
        expires_at=expires_at.isoformat() if expires_at else None,
        requests_per_minute=requests_per_minute,
    )
    return Key(**row._mapping), key


def list_all(connection: Connection) -> list[Key]:
    return [Key(**row._mapping) for row in connection.execute(select(*_COLUMNS).order_by(api_keys.c.id))]


def revoke(connection: Connection, prefix: str, *, actor: str) -> Key:
    """Revoke the key with this prefix, and end its sessions. A key that is revoked already keeps its `revoked_at`.

    Raises:
        Refused: NOT_FOUND.
    """
    connection.execute(
        update(api_keys).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None)).values(revoked_at=now())
    )
    row = connection.execute(select(*_COLUMNS).where(api_keys.c.prefix == prefix)).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"There is no key with the prefix {prefix!r}; see `linewatch keys list`.")
    connection.execute(delete(sessions).where(sessions.c.key_id == row.id))
    audit.record(connection, actor=actor, action="key.revoked", subject=actor_of(prefix))
    return Key(**row._mapping)


def check_others_remain(connection: Connection, prefix: str, *, actor: str) -> None:
    """Check that revoking the key with this prefix locks nobody out by accident.

    It locks the usable keys with the scope `admin` until the transaction ends, so that two of them cannot revoke each
    other. An operator of the server can revoke any key with `linewatch keys revoke`.

    Raises:
        Refused: OWN_API_KEY if the actor uses this key; LAST_ADMIN_KEY if it is the only usable key with the scope
            `admin`.
    """
    if actor == actor_of(prefix):
        raise Refused(
            Code.OWN_API_KEY,
            f"You are using the key {prefix!r}: revoking it would lock you out. Use another admin key to revoke it, "
            "or `linewatch keys revoke` on the server.",
        )
    usable = (
        select(api_keys.c.prefix)
        .where(
            literal("admin") == any_(api_keys.c.scopes),
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
        )
        .order_by(api_keys.c.id)
        .with_for_update(key_share=True)
    )
    if connection.execute(usable).scalars().all() == [prefix]:
        raise Refused(
            Code.LAST_ADMIN_KEY,
            f"The key {prefix!r} is the last one with the scope 'admin'. Create another admin key first, "
            "or use `linewatch keys revoke` on the server.",
        )


def note_use(connection: Connection, key_id: int) -> None:
    """Set the time of the last use of a key to now."""
    connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now()))


def find(connection: Connection, key: str) -> Key | None:
    """Return the key with this text, or None if it is unknown or revoked. The key may have expired.

    The comparison takes constant time.
    """
    marker, _, rest = key.partition("_")
    prefix, _, secret = rest.partition("_")
    if marker != "lw" or not prefix or not secret:
        return None
    row = connection.execute(
        select(*_COLUMNS, api_keys.c.secret_sha256).where(api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.secret_sha256, digest(key)):
        return None
    return Key(**{name: value for name, value in row._mapping.items() if name != "secret_sha256"})
