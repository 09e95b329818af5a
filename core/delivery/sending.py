"""Send deliveries: claim messages, release or cancel them, and record the results of tries.

A message is what one request sends. Its events are fixed by `message_id` at its first claim, so every try has the same
`webhook-id` and the same events. An event that is sent alone has its own id as `message_id`; a group has a new one,
even a group of one event. `claim` is a fencing token: a result counts only for the claim that sent it, so a sender that
lost its claim writes nothing.

`scheduled_at` is when `next_try_at` was set. If it lies in the future, the clock was ahead, and the next try is too
late.

To change deliveries of an endpoint, lock the row of the endpoint first. Then two senders never split the events of one
message, and there are no deadlocks.
"""

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.delivery import endpoints
from core.delivery.deliveries import Outcome
from core.delivery.retries import retry_pause

LEASE_SECONDS = 60.0
"""How long a claim holds: four times the longest try."""

CLOCK_TOLERANCE_SECONDS = 60.0
"""A delivery that was scheduled further in the future than this was scheduled by a clock that was ahead."""

ENDPOINTS_AT_ONCE = 16
EVENTS_AT_ONCE = 1000
"""The most events that a call of `claim` takes, and that a sender holds for an endpoint. One message may exceed it."""

RESCHEDULED_AT_ONCE = 10_000


@dataclass(frozen=True)
class Claim:
    """A delivery that a sender has claimed. `trace_context` is None if what caused it is not traced."""

    id: UUID
    claim: int
    event: str
    subject_id: str
    occurred_at: dt.datetime
    trace_context: str | None = None


@dataclass(frozen=True)
class Message:
    """The deliveries of one request. `tries` counts earlier tries; `callback_url` is set for callbacks only."""

    id: UUID
    endpoint_id: UUID
    callback_url: str | None
    tries: int
    claims: Sequence[Claim]

    @property
    def grouped(self) -> bool:
        """Whether its events are sent as a group; fixed with the id of the message."""
        return any(claim.id != self.id for claim in self.claims)


@dataclass(frozen=True)
class ReceiverAnswer:
    """The result of one try.

    Attributes:
        status: the HTTP status, None without a response.
        text: the beginning of the response's body, or the error.
        retry_after: the receiver's `Retry-After`, in seconds.
    """

    outcome: Outcome
    at: dt.datetime
    duration_ms: float
    status: int | None = None
    text: str = ""
    retry_after: float = 0.0


@dataclass(frozen=True)
class Result:
    """A message and the result of its try, not yet written."""

    message: Message
    answer: ReceiverAnswer


# In flight is only a delivery with more claims than tries; its sender may still record a result.
# `now()` is stable, so it can bound the range of an index; `clock_timestamp()` cannot.
_RESCHEDULE = text("""
WITH ahead AS (
    SELECT id, endpoint_id FROM deliveries
    WHERE state = 'pending' AND scheduled_at > now() + make_interval(secs => :tolerance)
    ORDER BY scheduled_at DESC LIMIT :at_most
), locked AS (
    SELECT id FROM webhook_endpoints WHERE state = 'enabled' AND id IN (SELECT endpoint_id FROM ahead)
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE deliveries SET scheduled_at = now(), next_try_at = least(
    deliveries.next_try_at, CASE WHEN claim > tries THEN now() + make_interval(secs => :lease) ELSE now() END
)
FROM ahead JOIN locked ON locked.id = ahead.endpoint_id
WHERE deliveries.id = ahead.id AND state = 'pending'
  AND scheduled_at > now() + make_interval(secs => :tolerance)
""")

_LOCK_DUE_ENDPOINTS = text("""
    SELECT endpoint.id, endpoint.max_group_size AS size, free.capacity
    FROM webhook_endpoints AS endpoint
    LEFT JOIN unnest(CAST(:held_ids AS uuid[]), CAST(:held AS int[]), CAST(:capacities AS int[]))
        AS held(id, number, capacity) ON held.id = endpoint.id
    CROSS JOIN LATERAL (SELECT CASE WHEN endpoint.failing_since IS NULL
                                    THEN least(coalesce(held.capacity, :capacity),
                                               greatest(1, :events / endpoint.max_group_size)) ELSE 1 END
                               - coalesce(held.number, 0) AS capacity) AS free
    WHERE endpoint.state = 'enabled' AND free.capacity > 0 AND (
        EXISTS (
            SELECT FROM deliveries
            WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_try_at <= clock_timestamp()
        ) OR endpoint.max_group_size > 1 AND endpoint.max_group_size = (
            SELECT count(*) FROM (
                SELECT FROM deliveries
                WHERE endpoint_id = endpoint.id AND state = 'pending' AND message_id IS NULL AND callback_url IS NULL
                LIMIT endpoint.max_group_size
            ) AS waiting
        )
    )
    ORDER BY coalesce(held.number, 0), random()
    LIMIT :at_most
    FOR NO KEY UPDATE OF endpoint SKIP LOCKED
""")

# A separate statement, so that it sees what was committed before the endpoints were locked. The rows of one message
# have the same `next_try_at`, so they are adjacent; rows that the limit cuts off are found by their `message_id`.
# Messages beyond the number of events wait for the next claim: first each endpoint's second message, then its third,
# and so on.
_CLAIM = text("""
WITH endpoint AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:capacities AS int[]), CAST(:sizes AS int[]))
        AS _(id, capacity, size)
), ready AS (
    SELECT endpoint.id AS endpoint_id, endpoint.capacity, endpoint.size, waiting.*,
        endpoint.size > 1 AND waiting.message_id IS NULL AND waiting.callback_url IS NULL AS grouping
    FROM endpoint CROSS JOIN LATERAL (
        SELECT id, message_id, callback_url, next_try_at FROM deliveries
        WHERE endpoint_id = endpoint.id AND state = 'pending'
          AND (next_try_at <= clock_timestamp() OR endpoint.size > 1 AND message_id IS NULL)
        ORDER BY next_try_at, id LIMIT endpoint.capacity * endpoint.size
    ) AS waiting
), numbered AS (
    SELECT *, CASE WHEN grouping THEN
            (row_number() OVER (PARTITION BY endpoint_id, grouping ORDER BY next_try_at, id) - 1) / size
        END AS chunk,
        CASE WHEN NOT grouping THEN coalesce(message_id, id) END AS fixed
    FROM ready
), message AS (
    SELECT endpoint_id, capacity, coalesce(fixed, uuidv7()) AS id, array_agg(id) AS parts, min(next_try_at) AS oldest
    FROM numbered GROUP BY endpoint_id, capacity, size, chunk, fixed
    HAVING min(next_try_at) <= clock_timestamp() OR chunk IS NOT NULL AND count(*) = size
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY endpoint_id ORDER BY oldest, id) AS rank FROM message
), taken AS (
    SELECT *, sum(cardinality(parts)) OVER turns AS events, row_number() OVER turns AS turn FROM ranked
    WHERE rank <= capacity WINDOW turns AS (ORDER BY rank, oldest, id)
), mine AS (
    SELECT taken.id AS message_id, unnest(parts) AS id FROM taken WHERE events <= :events OR turn = 1
    UNION
    SELECT taken.id, deliveries.id FROM taken JOIN deliveries ON deliveries.message_id = taken.id
    WHERE (events <= :events OR turn = 1) AND deliveries.state = 'pending'
)
UPDATE deliveries SET claim = claim + 1, message_id = mine.message_id, scheduled_at = now(),
    next_try_at = now() + make_interval(secs => :lease)
FROM mine WHERE deliveries.id = mine.id AND deliveries.state = 'pending'
RETURNING deliveries.message_id, deliveries.id, deliveries.endpoint_id, deliveries.claim, deliveries.event,
    deliveries.subject_id, deliveries.callback_url, deliveries.occurred_at, deliveries.tries,
    deliveries.trace_context
""")


@dataclass(frozen=True)
class EndpointLoad:
    """How many messages of an endpoint a sender holds, and how many it may hold at most."""

    number: int
    capacity: int


def claim(
    connection: Connection, held: Mapping[UUID, EndpointLoad], *, capacity: int, lease_seconds: float = LEASE_SECONDS
) -> list[Message]:
    """Claim messages that are due, of endpoints that are enabled.

    Args:
        held: the messages that the sender already holds, by endpoint.
        capacity: how many messages it may hold of any other endpoint; of a failing endpoint it holds at most one.
    """
    _reschedule(connection, lease_seconds)
    locked = connection.execute(
        _LOCK_DUE_ENDPOINTS,
        {
            "held_ids": list(held),
            "held": [load.number for load in held.values()],
            "capacities": [load.capacity for load in held.values()],
            "capacity": capacity,
            "events": EVENTS_AT_ONCE,
            "at_most": ENDPOINTS_AT_ONCE,
        },
    ).all()
    if not locked:
        return []
    rows = connection.execute(
        _CLAIM,
        {
            "ids": [endpoint.id for endpoint in locked],
            "capacities": [endpoint.capacity for endpoint in locked],
            "sizes": [endpoint.size for endpoint in locked],
            "events": EVENTS_AT_ONCE,
            "lease": lease_seconds,
        },
    ).all()
    parts: dict[UUID, list[Row[Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        parts[row.message_id].append(row)
    return [_message(message_id, message_rows) for message_id, message_rows in parts.items()]


def _reschedule(connection: Connection, lease_seconds: float) -> None:
    """Make deliveries due that a clock that was ahead scheduled too late; those in flight once their lease is over."""
    connection.execute(
        _RESCHEDULE,
        {"tolerance": CLOCK_TOLERANCE_SECONDS, "lease": lease_seconds, "at_most": RESCHEDULED_AT_ONCE},
    )


def _message(message_id: UUID, rows: Sequence[Row[Any]]) -> Message:
    return Message(
        message_id,
        rows[0].endpoint_id,
        rows[0].callback_url,
        max(row.tries for row in rows),
        [Claim(row.id, row.claim, row.event, row.subject_id, row.occurred_at, row.trace_context) for row in rows],
    )


def next_due(connection: Connection) -> float | None:
    """Seconds until the next message of an enabled endpoint becomes due; None if there is none.

    Messages that are already due wait for capacity, not for a time, and do not count.
    """
    due: float | None = connection.execute(
        text("""
            SELECT CAST(extract(epoch FROM min(next.try_at) - clock_timestamp()) AS float8)
            FROM webhook_endpoints AS endpoint CROSS JOIN LATERAL (
                SELECT next_try_at AS try_at FROM deliveries
                WHERE endpoint_id = endpoint.id AND state = 'pending' AND next_try_at > clock_timestamp()
                ORDER BY next_try_at LIMIT 1
            ) AS next
            WHERE endpoint.state = 'enabled'
        """)
    ).scalar_one()
    return due


def release(connection: Connection, messages: Sequence[Message]) -> None:
    """Release claims whose tries were not made or not completed; they are due at once."""
    claims = [claim for message in messages for claim in message.claims]
    _change_held(
        connection, {message.endpoint_id for message in messages}, claims, "next_try_at = now(), scheduled_at = now()"
    )


def cancel(connection: Connection, endpoint_ids: set[UUID], claims: Sequence[Claim]) -> None:
    """`pending → cancelled`, for claims whose subjects were deleted."""
    _change_held(connection, endpoint_ids, claims, "state = 'cancelled', finished_at = now()")


def _change_held(connection: Connection, endpoint_ids: set[UUID], claims: Sequence[Claim], change: str) -> None:
    _lock_endpoints(connection, endpoint_ids)
    connection.execute(
        text(f"""
            UPDATE deliveries SET {change}
            FROM unnest(CAST(:ids AS uuid[]), CAST(:claims AS int[])) AS held(id, claim)
            WHERE deliveries.id = held.id AND deliveries.claim = held.claim AND deliveries.state = 'pending'
        """),  # noqa: S608 - the change is a constant
        {"ids": [claim.id for claim in claims], "claims": [claim.claim for claim in claims]},
    )


_HANDLE = text("""
WITH result AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:claims AS int[]), CAST(:delivered AS bool[]), CAST(:pauses AS float8[])
    ) AS _(id, claim, delivered, pause)
), handled AS (
    UPDATE deliveries SET tries = deliveries.tries + 1, scheduled_at = now(),
        state = CASE WHEN result.delivered THEN 'delivered' WHEN result.pause IS NULL THEN 'exhausted'
                     ELSE 'pending' END,
        finished_at = CASE WHEN result.delivered OR result.pause IS NULL THEN now() END,
        next_try_at = CASE WHEN result.delivered OR result.pause IS NULL THEN next_try_at
                           ELSE now() + make_interval(secs => result.pause) END
    FROM result
    WHERE deliveries.id = result.id AND deliveries.claim = result.claim AND deliveries.state = 'pending'
    RETURNING deliveries.message_id
)
INSERT INTO delivery_attempts (message_id, at, outcome, status, duration_ms, answer)
SELECT message_id, at, outcome, status, duration_ms, answer FROM unnest(
    CAST(:message_ids AS uuid[]), CAST(:attempted_at AS timestamptz[]), CAST(:outcomes AS text[]),
    CAST(:statuses AS int[]), CAST(:durations AS float8[]), CAST(:answers AS text[])
) AS attempt(message_id, at, outcome, status, duration_ms, answer)
WHERE EXISTS (SELECT FROM handled WHERE handled.message_id = attempt.message_id)
""")

_NOTE_FAILING = text("""
    UPDATE webhook_endpoints SET failing_since = CASE WHEN result.succeeded THEN NULL ELSE now() END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:succeeded AS bool[])) AS result(id, succeeded)
    WHERE webhook_endpoints.id = result.id AND (webhook_endpoints.failing_since IS NULL) <> result.succeeded
""")

_FAILED_TOO_LONG = text("""
    SELECT id FROM webhook_endpoints
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'enabled'
      AND failing_since <= now() - make_interval(secs => :seconds)
""")


def record_results(
    connection: Connection, results: Sequence[Result], *, schedule: Sequence[float], disable_after_days: float
) -> dict[UUID, str]:
    """Record the results of tries, many in one statement. Failed messages are due again after a pause of the schedule.

    Disables endpoints that answered 410, or that only failed for `disable_after_days`. Results of callbacks do not
    affect their endpoint.

    Returns:
        The reason for each endpoint that was disabled.
    """
    outcomes: dict[UUID, set[Outcome]] = defaultdict(set)
    for result in results:
        if result.message.callback_url is None:
            outcomes[result.message.endpoint_id].add(result.answer.outcome)
    _lock_endpoints(connection, {result.message.endpoint_id for result in results})
    paused = [(result, _pause(result, schedule)) for result in results]
    parts = [(part, result.answer, pause) for result, pause in paused for part in result.message.claims]
    connection.execute(
        _HANDLE,
        {
            "ids": [part.id for part, _, _ in parts],
            "claims": [part.claim for part, _, _ in parts],
            "delivered": [answer.outcome is Outcome.DELIVERED for _, answer, _ in parts],
            "pauses": [pause for _, _, pause in parts],
            "message_ids": [result.message.id for result in results],
            "attempted_at": [result.answer.at for result in results],
            "outcomes": [result.answer.outcome for result in results],
            "statuses": [result.answer.status for result in results],
            "durations": [result.answer.duration_ms for result in results],
            "answers": [result.answer.text for result in results],
        },
    )
    return _update_endpoint_states(connection, outcomes, disable_after_days)


def _pause(result: Result, schedule: Sequence[float]) -> float | None:
    if result.answer.outcome is Outcome.GONE and result.message.callback_url is not None:
        return None  # 410 ends this callback; other callbacks have other addresses
    jitter = random.random()  # noqa: S311 - it only spreads load
    return retry_pause(result.message.tries + 1, schedule, retry_after=result.answer.retry_after, jitter=jitter)


def _update_endpoint_states(
    connection: Connection, outcomes: Mapping[UUID, set[Outcome]], disable_after_days: float
) -> dict[UUID, str]:
    ids = list(outcomes)
    connection.execute(
        _NOTE_FAILING, {"ids": ids, "succeeded": [Outcome.DELIVERED in outcomes[endpoint_id] for endpoint_id in ids]}
    )
    too_long = connection.execute(_FAILED_TOO_LONG, {"ids": ids, "seconds": disable_after_days * 24 * 3600}).scalars()
    reasons = dict.fromkeys(too_long.all(), f"only failures for {disable_after_days:g} days")
    reasons |= {endpoint_id: "answered 410 Gone" for endpoint_id in ids if Outcome.GONE in outcomes[endpoint_id]}
    for endpoint_id, reason in reasons.items():
        endpoints.disable(connection, endpoint_id, because=reason)
    return reasons


def _lock_endpoints(connection: Connection, ids: set[UUID]) -> None:
    connection.execute(
        text("""
            SELECT FROM webhook_endpoints WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE
        """),
        {"ids": list(ids)},
    )
