"""API keys: `lw_<prefix>_<secret>`. A key is shown once; what is stored is its prefix and the hash of the whole."""

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.sql.functions import now

from core import audit
from core.errors import Code, Refused
from core.tables import api_keys

SCOPES = ("submit", "read", "admin")


@dataclass(frozen=True)
class Key:
    """A key as it may be shown: never its secret."""

    id: int
    name: str
    prefix: str
    scopes: list[str]
    created_at: dt.datetime
    revoked_at: dt.datetime | None

    def allows(self, scope: str) -> bool:
        """Whether the key carries a scope; `admin` carries all."""
        return scope in self.scopes or "admin" in self.scopes


_SHOWN = [api_keys.c[name] for name in ("id", "name", "prefix", "scopes", "created_at", "revoked_at")]


def _digest(key: str) -> bytes:
    # A key holds 256 random bits, so a plain hash withstands guessing; a slow one would only slow the api down.
    return hashlib.sha256(key.encode()).digest()


def create(connection: Connection, name: str, scopes: Sequence[str], *, actor: str) -> tuple[Key, str]:
    """A new key, and its text, which cannot be had again."""
    wrong = sorted(set(scopes) - set(SCOPES))
    if wrong or not scopes:
        raise Refused(Code.INVALID_FIELD, f"Scopes are {', '.join(SCOPES)}; not {', '.join(wrong) or 'none'}.")
    prefix = secrets.token_hex(6)
    key = f"lw_{prefix}_{secrets.token_urlsafe(32)}"
    row = connection.execute(
        insert(api_keys)
        .values(name=name, prefix=prefix, secret_sha256=_digest(key), scopes=sorted(set(scopes)))
        .returning(*_SHOWN)
    ).one()
    audit.record(connection, actor=actor, action="key.created", subject=f"key:{prefix}", scopes=sorted(set(scopes)))
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


def find(connection: Connection, key: str) -> Key | None:
    """The key of this text, if it is one of ours and not revoked. The comparison takes constant time."""
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
