"""Idempotency keys: a request retried under the same key changes nothing and gets the first answer again.

A key is inserted in the same transaction as the rows of its request, so both are committed or neither is.
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

RETENTION = dt.timedelta(hours=48)
"""Minimum time that a key is stored."""


@dataclass(frozen=True, order=True)
class Key:
    """An idempotency key. `owner` is the API key that sent it, so clients cannot use each other's keys."""

    owner: str
    key: str


@dataclass(frozen=True)
class KeyedRequest:
    """A request under a key.

    Attributes:
        fingerprint: hash of the request; it must be the same for every request under this key.
        detail: the part of the answer that cannot be rebuilt from the subjects, as JSON.
    """

    key: Key
    fingerprint: bytes
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyedResult:
    """What to answer a request with: its new subjects or, if replayed, those of the first request under the key."""

    subjects: list[UUID]
    detail: dict[str, Any]
    replayed: bool


def fingerprint(kind: str, request: Any, default: Callable[[Any], Any] = str) -> bytes:
    """SHA-256 of the request as canonical JSON; `default` converts values that JSON does not support."""
    canonical = json.dumps([kind, request], default=default, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).digest()


def insert_keys(
    connection: Connection, requests: Sequence[tuple[KeyedRequest | None, list[UUID]]]
) -> list[KeyedResult | Refused]:
    """Insert the keys of a group of requests, each with the ids of the subjects that it is about to create.

    Call it before the transaction writes or locks anything else. A transaction that waits here for another process
    then holds only keys, and it locks them in sorted order, so two groups cannot deadlock.
    """
    by_key: dict[Key, tuple[KeyedRequest, list[UUID]]] = {}
    for request, subjects in requests:
        if request is not None:
            by_key.setdefault(request.key, (request, subjects))
    inserted = _insert(connection, by_key)
    earlier = _find(connection, by_key.keys() - inserted)

    def outcome(request: KeyedRequest | None, subjects: list[UUID]) -> KeyedResult | Refused:
        if request is None:
            return KeyedResult(subjects, {}, replayed=False)
        if request.key in inserted and by_key[request.key][0] is request:
            return KeyedResult(subjects, request.detail, replayed=False)
        if request.key not in earlier:  # another request of this group has it, or it was deleted just now
            return in_flight()
        first = earlier[request.key]
        if first.fingerprint != request.fingerprint:
            return _mismatch()
        return KeyedResult(list(first.subjects), first.detail, replayed=True)

    return [outcome(request, subjects) for request, subjects in requests]


def _insert(connection: Connection, by_key: dict[Key, tuple[KeyedRequest, list[UUID]]]) -> set[Key]:
    """Insert the keys that are free, in one statement; returns them."""
    rows = [
        {
            "owner": key.owner,
            "key": key.key,
            "fingerprint": by_key[key][0].fingerprint,
            "subjects": by_key[key][1],
            "detail": by_key[key][0].detail,
        }
        for key in sorted(by_key)
    ]
    if not rows:
        return set()
    statement = insert(idempotency_keys).on_conflict_do_nothing()
    inserted = connection.execute(statement.returning(idempotency_keys.c.owner, idempotency_keys.c.key), rows)
    return {Key(owner, key) for owner, key in inserted}


def _find(connection: Connection, keys: set[Key]) -> dict[Key, Any]:
    if not keys:
        return {}
    rows = connection.execute(select(idempotency_keys).where(_is_one_of(keys)))
    return {Key(row.owner, row.key): row for row in rows}


def _is_one_of(keys: Sequence[Key] | set[Key]) -> Any:
    return tuple_(idempotency_keys.c.owner, idempotency_keys.c.key).in_([(key.owner, key.key) for key in keys])


def delete_keys(connection: Connection, keys: Sequence[Key]) -> None:
    """Delete keys that this transaction inserted for requests that it then refused."""
    if keys:
        connection.execute(delete(idempotency_keys).where(_is_one_of(keys)))


def key_exists(connection: Connection, key: Key) -> bool:
    """Whether a request was accepted under this key."""
    return bool(_find(connection, {key}))


def in_flight() -> Refused:
    """The refusal while the first request under a key has not been answered."""
    return Refused(
        Code.IDEMPOTENCY_IN_FLIGHT,
        "A request with this Idempotency-Key is still in progress. Retry to get its answer.",
        retry_after=1,
    )


def _mismatch() -> Refused:
    return Refused(
        Code.IDEMPOTENCY_MISMATCH,
        "This Idempotency-Key was used for a different request: its images or fields differ. "
        "Send the original request again, or use a new key.",
    )


def delete_old_keys(connection: Connection, *, at_most: int) -> int:
    """Delete keys older than `RETENTION`, oldest first; returns how many."""
    return connection.execute(
        text("""
            DELETE FROM idempotency_keys USING (
                SELECT owner, key FROM idempotency_keys WHERE created_at < now() - CAST(:retention AS interval)
                ORDER BY created_at LIMIT :at_most FOR UPDATE SKIP LOCKED
            ) AS old WHERE idempotency_keys.owner = old.owner AND idempotency_keys.key = old.key
        """),
        {"retention": RETENTION, "at_most": at_most},
    ).rowcount
