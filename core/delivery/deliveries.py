"""Deliveries: one event to one webhook endpoint, from the commit that caused it until it is delivered or exhausted.

              claim: claim + 1, a lease               handle, only by the claim that holds it
    pending ─────────────────────────────► in flight ─────────────────────────────────────────► delivered (2xx)
    ▲ ▲  ▲                                  │  │ │ └─── the last try failed ──────────────────► exhausted
    │ │  └── a try failed: after a pause ◄──┘  │ └───── its subject was deleted ─────────► cancelled
    │ └───── the lease expired, or release ◄───┘
    └─────── replay, of a final one

A delivery in flight is in the state pending. Its next try is in the future, which serves as the lease. If the sender
dies, the delivery becomes due again. `core.delivery.sending` claims deliveries and records results; this module reads,
replays and deletes them.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.errors import Code, Refused
from core.feed.events import EventType
from core.partitions import first_id_of
from core.tracing import traces

KEPT = dt.timedelta(days=30)

State = Literal["pending", "delivered", "exhausted", "cancelled"]


class Outcome(StrEnum):
    """The outcome of a try. Only the first value is a success. After any other, the delivery is retried on schedule."""

    DELIVERED = "delivered"  # answered with 2xx
    REFUSED_STATUS = "refused_status"  # answered with anything else, redirects included
    GONE = "gone"  # answered with 410: the endpoint is disabled
    TIMED_OUT = "timed_out"  # no response within the time limit of a try
    UNREACHABLE = "unreachable"  # no address, no connection, or a broken connection
    TLS_FAILED = "tls_failed"  # an untrusted certificate, or no common protocol
    BAD_ANSWER = "bad_answer"  # not HTTP
    TARGET_REFUSED = "target_refused"  # its address is not allowed (any more)


@dataclass(frozen=True)
class Attempt:
    """A recorded try of a message."""

    at: dt.datetime
    outcome: Outcome
    status: int | None
    duration_ms: float
    answer: str


@dataclass(frozen=True)
class Delivery:
    """An event for an endpoint, with its tries, oldest first. `next_try_at` is None once it is final."""

    id: UUID
    endpoint_id: UUID
    event: str
    subject_id: str
    url: str
    state: State
    tries: int
    occurred_at: dt.datetime
    next_try_at: dt.datetime | None
    finished_at: dt.datetime | None
    message_id: UUID | None
    attempts: Sequence[Attempt] = ()


_SELECT = """
    SELECT delivery.id, delivery.endpoint_id, delivery.event, delivery.subject_id,
        coalesce(delivery.callback_url, endpoint.url) AS url, delivery.state, delivery.tries, delivery.occurred_at,
        CASE WHEN delivery.state = 'pending' THEN delivery.next_try_at END AS next_try_at,
        delivery.finished_at, delivery.message_id
    FROM deliveries AS delivery JOIN webhook_endpoints AS endpoint ON endpoint.id = delivery.endpoint_id
"""


_PAGE = f"""
    {_SELECT} WHERE delivery.endpoint_id = :endpoint_id AND delivery.id < :before {{condition}}
    ORDER BY delivery.id DESC LIMIT :limit
"""
_LAST_ID = UUID(int=2**128 - 1)
# The state is a literal, so that the planner can use the partial index on exhausted deliveries.
_IN_STATE: Mapping[State | None, str] = {None: ""} | {
    state: f"AND delivery.state = '{state}'" for state in get_args(State)
}


def _deliveries(connection: Connection, rows: Sequence[Row[Any]]) -> list[Delivery]:
    attempts: dict[UUID, list[Attempt]] = defaultdict(list)
    for row in connection.execute(
        text("""
            SELECT message_id, at, outcome, status, duration_ms, answer FROM delivery_attempts
            WHERE message_id = ANY(CAST(:ids AS uuid[])) ORDER BY message_id, id
        """),
        {"ids": [row.message_id for row in rows if row.message_id is not None]},
    ):
        attempts[row.message_id].append(Attempt(row.at, Outcome(row.outcome), row.status, row.duration_ms, row.answer))
    return [Delivery(**row._mapping, attempts=attempts.get(row.message_id, ())) for row in rows]


def get(connection: Connection, delivery_id: UUID) -> Delivery:
    """One delivery.

    Raises:
        Refused: NOT_FOUND.
    """
    rows = connection.execute(text(f"{_SELECT} WHERE delivery.id = :id"), {"id": delivery_id}).all()
    if not rows:
        raise Refused(Code.NOT_FOUND, f"There is no delivery {delivery_id}.")
    return _deliveries(connection, rows)[0]


def list_page(
    connection: Connection, endpoint_id: UUID, *, state: State | None, before: UUID | None, limit: int
) -> tuple[list[Delivery], UUID | None]:
    """One page of an endpoint's deliveries, newest first, and `before` for the next page, or None after the last."""
    rows = connection.execute(
        text(_PAGE.format(condition=_IN_STATE[state])),
        {"endpoint_id": endpoint_id, "before": before or _LAST_ID, "limit": limit + 1},
    ).all()
    items = _deliveries(connection, rows[:limit])
    return items, items[-1].id if len(rows) > limit else None


def send_test(connection: Connection, endpoint_id: UUID) -> Delivery:
    """Insert a delivery of `endpoint.test`.

    Raises:
        Refused: INVALID_TRANSITION if the endpoint is not enabled; NOT_FOUND.
    """
    _lock_enabled(connection, endpoint_id, f"Endpoint {endpoint_id} is {{state}}; enable it before you test it.")
    delivery_id = connection.execute(
        text("""
            INSERT INTO deliveries (endpoint_id, event, subject_id, trace_context)
            VALUES (:endpoint_id, :event, CAST(:endpoint_id AS text), :trace_context) RETURNING id
        """),
        {
            "endpoint_id": endpoint_id,
            "event": EventType.ENDPOINT_TEST,
            "trace_context": traces.current_context(),
        },
    ).scalar_one()
    return get(connection, delivery_id)


def replay(connection: Connection, delivery_id: UUID) -> Delivery:
    """Send a delivery again, under the same message id: `delivered | exhausted | cancelled → pending`, with 0 tries.

    A pending delivery becomes due at once; the answer to a try in flight no longer counts. All events of its message
    are sent again, as one message.

    Raises:
        Refused: INVALID_TRANSITION if the endpoint is not enabled; NOT_FOUND.
    """
    delivery = get(connection, delivery_id)
    _lock_enabled(
        connection,
        delivery.endpoint_id,
        f"Delivery {delivery_id} cannot be sent again: endpoint {delivery.endpoint_id} is {{state}}. Enable it first.",
    )
    connection.execute(
        text("""
            UPDATE deliveries SET state = 'pending', claim = claim + 1, next_try_at = now(), scheduled_at = now(),
                finished_at = NULL, tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END
            WHERE id = :id OR message_id = :message_id
        """),
        {"id": delivery_id, "message_id": delivery.message_id},
    )
    return get(connection, delivery_id)


def _lock_enabled(connection: Connection, endpoint_id: UUID, refusal: str) -> None:
    state = connection.execute(
        text("SELECT state FROM webhook_endpoints WHERE id = :id FOR NO KEY UPDATE"), {"id": endpoint_id}
    ).scalar_one_or_none()
    if state is None:
        raise Refused(Code.NOT_FOUND, f"There is no webhook endpoint {endpoint_id}.")
    if state != "enabled":
        raise Refused(Code.INVALID_TRANSITION, refusal.format(state=state))


def delete_old(connection: Connection, *, at_most: int, now: dt.datetime | None = None) -> int:
    """Delete deliveries that were finished longer ago than `KEPT`, with their tries; returns how many.

    Pending deliveries of that age are deleted, too, if their endpoint is not enabled.
    """
    moment = (now or dt.datetime.now(dt.UTC)) - KEPT
    removed: int = connection.execute(
        text("""
            WITH old AS (
                SELECT delivery.id FROM deliveries AS delivery
                JOIN webhook_endpoints AS endpoint ON endpoint.id = delivery.endpoint_id
                WHERE delivery.id < :oldest AND (delivery.finished_at < :moment
                    OR delivery.state = 'pending' AND delivery.occurred_at < :moment AND endpoint.state <> 'enabled')
                ORDER BY delivery.id LIMIT :at_most FOR UPDATE OF delivery SKIP LOCKED
            ), deleted AS (
                DELETE FROM deliveries USING old WHERE deliveries.id = old.id RETURNING deliveries.message_id
            ), deleted_attempts AS (
                DELETE FROM delivery_attempts USING deleted WHERE delivery_attempts.message_id = deleted.message_id
            )
            SELECT count(*) FROM deleted
        """),
        {"oldest": first_id_of(moment), "moment": moment, "at_most": at_most},
    ).scalar_one()
    return removed
