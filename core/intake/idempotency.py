"""Idempotency keys: a request that is sent again under its key changes nothing and gets the first answer again.

A key is entered in the transaction of what it was used for, so that both are kept or neither is.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert

from core.errors import Code, Refused
from core.tables import idempotency_keys

KEPT = dt.timedelta(hours=48)
"""How long a key is known, at least."""


@dataclass(frozen=True, order=True)
class Key:
    """What a client calls one request; `owner` is whose key it is, so that clients do not get at each other's."""

    owner: str
    key: str


@dataclass(frozen=True)
class KeyedRequest:
    """A request under a key.

    Attributes:
        fingerprint: of what was asked; under the same key it must stay the same.
        detail: what of the answer is not to be had from its subjects, as JSON.
    """

    key: Key
    fingerprint: bytes
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyedResult:
    """What a request is to be answered with: its own subjects or, replayed, those of the first under its key."""

    subjects: list[UUID]
    detail: dict[str, Any]
    replayed: bool


def fingerprint(kind: str, asked: Any, default: Callable[[Any], Any] = str) -> bytes:
    """SHA-256 of what was asked, as canonical JSON; `default` makes plain what JSON does not know."""
    canonical = json.dumps([kind, asked], default=default, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).digest()


def enter_keys(
    connection: Connection, requests: Sequence[tuple[KeyedRequest | None, list[UUID]]]
) -> list[KeyedResult | Refused]:
    """Enter the keys of a group of requests, each with the subjects that it would make.

    It must come before anything else that the transaction writes or locks: whoever waits here for another process'
    transaction holds nothing but keys, and takes them in one order, so that two groups cannot wait for each other.
    """
    uses: dict[Key, tuple[KeyedRequest, list[UUID]]] = {}
    for use, subjects in requests:
        if use is not None:
            uses.setdefault(use.key, (use, subjects))
    mine = _insert(connection, uses)
    earlier = _find(connection, uses.keys() - mine)

    def outcome(use: KeyedRequest | None, subjects: list[UUID]) -> KeyedResult | Refused:
        if use is None:
            return KeyedResult(subjects, {}, replayed=False)
        if use.key in mine and uses[use.key][0] is use:
            return KeyedResult(subjects, use.detail, replayed=False)
        if use.key not in earlier:  # another one of this group has it, or it has just become too old
            return in_flight()
        first = earlier[use.key]
        if first.fingerprint != use.fingerprint:
            return _mismatch()
        return KeyedResult(list(first.subjects), first.detail, replayed=True)

    return [outcome(use, subjects) for use, subjects in requests]


def _insert(connection: Connection, uses: dict[Key, tuple[KeyedRequest, list[UUID]]]) -> set[Key]:
    """Enter those keys that are free, in one statement; returns them."""
    rows = [
        {
            "owner": key.owner,
            "key": key.key,
            "fingerprint": uses[key][0].fingerprint,
            "subjects": uses[key][1],
            "detail": uses[key][0].detail,
        }
        for key in sorted(uses)
    ]
    if not rows:
        return set()
    statement = insert(idempotency_keys).on_conflict_do_nothing()
    entered = connection.execute(statement.returning(idempotency_keys.c.owner, idempotency_keys.c.key), rows)
    return {Key(owner, key) for owner, key in entered}


def _find(connection: Connection, keys: set[Key]) -> dict[Key, Any]:
    if not keys:
        return {}
    rows = connection.execute(select(idempotency_keys).where(_is_one_of(keys)))
    return {Key(row.owner, row.key): row for row in rows}


def _is_one_of(keys: Sequence[Key] | set[Key]) -> Any:
    return tuple_(idempotency_keys.c.owner, idempotency_keys.c.key).in_([(key.owner, key.key) for key in keys])


def forget(connection: Connection, keys: Sequence[Key]) -> None:
    """Give up keys that this transaction has entered for what was refused then."""
    if keys:
        connection.execute(delete(idempotency_keys).where(_is_one_of(keys)))


def is_known(connection: Connection, key: Key) -> bool:
    """Whether something was accepted under this key."""
    return bool(_find(connection, {key}))


def in_flight() -> Refused:
    """The refusal while the first request of a key has not been answered."""
    return Refused(
        Code.IDEMPOTENCY_IN_FLIGHT,
        "A request with this Idempotency-Key is being worked on. Send it again for its answer.",
        retry_after=1,
    )


def _mismatch() -> Refused:
    return Refused(
        Code.IDEMPOTENCY_MISMATCH,
        "This Idempotency-Key was used for another request: its images or fields differ. "
        "Send what was sent first, or take a new key.",
    )


def remove_old(connection: Connection, *, at_most: int) -> int:
    """Remove keys that have been kept long enough, the oldest first; returns how many."""
    return connection.execute(
        text("""
            DELETE FROM idempotency_keys USING (
                SELECT owner, key FROM idempotency_keys WHERE created_at < now() - CAST(:kept AS interval)
                ORDER BY created_at LIMIT :at_most FOR UPDATE SKIP LOCKED
            ) AS old WHERE idempotency_keys.owner = old.owner AND idempotency_keys.key = old.key
        """),
        {"kept": KEPT, "at_most": at_most},
    ).rowcount
