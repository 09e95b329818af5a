"""Batches: images that were submitted together, or that joined an open batch.

States: `open → running → completed | cancelled`. The counters count the machine's verdicts. They are updated once a
minibatch, last in the transaction that finishes it; the update that leaves nothing unfinished completes the batch.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.errors import Code, Refused
from core.feed import events
from core.feed.events import Callback, Event, EventType
from core.tracing import traces

COUNTED = ("completed", "failed", "cancelled", "ok", "ng", "review")


@dataclass
class Counts:
    """What one minibatch adds to the counters of a batch.

    Attributes:
        trace_context: where the trace of a batch that this completes goes on from.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    ok: int = 0
    ng: int = 0
    review: int = 0
    trace_context: str | None = field(default_factory=traces.current_context)

    def add(self, status: str, verdict: str | None) -> None:
        """Count one inspection that became final."""
        setattr(self, status, getattr(self, status) + 1)
        if verdict is not None:
            setattr(self, verdict, getattr(self, verdict) + 1)


@dataclass(frozen=True)
class Batch:
    """A batch: its state and the counts of its inspections."""

    id: UUID
    state: str
    counts: dict[str, int]
    created_at: dt.datetime
    closed_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def final(self) -> bool:
        return self.state in ("completed", "cancelled")


def unknown_batch(batch_id: UUID) -> Refused:
    """Return the refusal of an unknown batch id."""
    return Refused(Code.NOT_FOUND, f"There is no batch {batch_id}.")


def get(connection: Connection, batch_id: UUID) -> Batch:
    """One batch.

    Raises:
        Refused: NOT_FOUND.
    """
    found = by_ids(connection, [batch_id])
    if batch_id not in found:
        raise unknown_batch(batch_id)
    return found[batch_id]


def by_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Batch]:
    """The batches with these ids, by id; unknown ids are left out."""
    rows = connection.execute(
        text("""
            SELECT batches.*, (
                SELECT count(*) FROM work WHERE work.batch_id = batches.id AND work.state = 'running'
            ) AS running
            FROM batches WHERE batches.id = ANY(CAST(:ids AS uuid[]))
        """),
        {"ids": list(ids)},
    )
    return {row.id: _batch(row) for row in rows}


def _batch(row: Row[Any]) -> Batch:
    final = row.completed + row.failed + row.cancelled
    counts = {"total": row.total, "queued": max(0, row.total - final - row.running), "running": row.running}
    counts |= {name: getattr(row, name) for name in COUNTED}
    return Batch(row.id, row.state, counts, row.created_at, row.closed_at, row.finished_at)


def as_first_answered(connection: Connection, sizes: Mapping[UUID, int]) -> dict[UUID, Batch]:
    """Batches as they were when first answered, for replayed requests. `sizes` has their numbers of inspections."""
    if not sizes:
        return {}
    rows = connection.execute(
        text("SELECT id, created_at FROM batches WHERE id = ANY(CAST(:ids AS uuid[]))"), {"ids": list(sizes)}
    )
    found = {}
    for row in rows:
        size = sizes[row.id]
        counts = {"total": size, "queued": size, "running": 0} | dict.fromkeys(COUNTED, 0)
        closed_at = row.created_at if size else None
        found[row.id] = Batch(row.id, "running" if size else "open", counts, row.created_at, closed_at, None)
    return found


def create(connection: Connection, batch_id: UUID, *, closed: bool, callback: Callback | None = None) -> None:
    """Insert a batch, closed if it comes with its images, else open."""
    connection.execute(
        text("""
            INSERT INTO batches (id, state, closed_at, callback_endpoint_id, callback_url)
            VALUES (
                :id, CASE WHEN :closed THEN 'running' ELSE 'open' END, CASE WHEN :closed THEN now() END,
                CAST(:callback_endpoint_id AS uuid), :callback_url
            )
        """),
        {
            "id": batch_id,
            "closed": closed,
            "callback_endpoint_id": callback.endpoint_id if callback else None,
            "callback_url": callback.url if callback else None,
        },
    )


def lock_states(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, str]:
    """The states of these batches, locked in one order until the transaction ends."""
    rows = connection.execute(
        text("SELECT id, state FROM batches WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE"),
        {"ids": list(ids)},
    )
    return {row.id: row.state for row in rows}


def add_to_totals(connection: Connection, additions: Mapping[UUID, int]) -> None:
    """Add to the totals of batches."""
    connection.execute(
        text("""
            UPDATE batches SET total = total + added.number
            FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS int[])) AS added(id, number)
            WHERE batches.id = added.id
        """),
        {"ids": list(additions), "numbers": list(additions.values())},
    )


def add_to_counters(connection: Connection, counts: Mapping[UUID, Counts]) -> list[UUID]:
    """Add to the counters of batches, and complete those without unfinished inspections; returns the completed ones."""
    if not counts:
        return []
    lock_states(connection, counts)
    connection.execute(
        text("""
            UPDATE batches SET completed = batches.completed + more.completed, failed = batches.failed + more.failed,
                cancelled = batches.cancelled + more.cancelled, ok = batches.ok + more.ok, ng = batches.ng + more.ng,
                review = batches.review + more.review
            FROM unnest(
                CAST(:ids AS uuid[]), CAST(:completed AS int[]), CAST(:failed AS int[]), CAST(:cancelled AS int[]),
                CAST(:ok AS int[]), CAST(:ng AS int[]), CAST(:review AS int[])
            ) AS more(id, completed, failed, cancelled, ok, ng, review)
            WHERE batches.id = more.id
        """),
        {"ids": list(counts)}
        | {name: [getattr(batch_counts, name) for batch_counts in counts.values()] for name in COUNTED},
    )
    return _complete(connection, {batch_id: batch_counts.trace_context for batch_id, batch_counts in counts.items()})


def close(connection: Connection, batch_id: UUID) -> bool:
    """`open → running`, and then `completed` if all its inspections are final. Returns whether it is completed now.

    Closing a closed batch changes nothing.

    Raises:
        Refused: INVALID_TRANSITION if it is cancelled; NOT_FOUND.
    """
    state = _locked_state(connection, batch_id)
    if state == "cancelled":
        raise Refused(Code.INVALID_TRANSITION, f"Batch {batch_id} is cancelled and cannot be closed.")
    connection.execute(
        text("UPDATE batches SET state = 'running', closed_at = now() WHERE id = :id AND state = 'open'"),
        {"id": batch_id},
    )
    return bool(_complete(connection, {batch_id: traces.current_context()}))


def mark_cancelled(connection: Connection, batch_id: UUID) -> None:
    """`open | running → cancelled`; a cancelled batch stays. Cancel its inspections, too.

    Raises:
        Refused: INVALID_TRANSITION if it is completed; NOT_FOUND.
    """
    state = _locked_state(connection, batch_id)
    if state == "completed":
        raise Refused(Code.INVALID_TRANSITION, f"Batch {batch_id} is completed and cannot be cancelled.")
    connection.execute(
        text("UPDATE batches SET state = 'cancelled', finished_at = now() WHERE id = :id AND state <> 'cancelled'"),
        {"id": batch_id},
    )


def which_are_final(connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these batches are final."""
    rows: Any = connection.execute(
        text("SELECT id FROM batches WHERE id = ANY(CAST(:ids AS uuid[])) AND state IN ('completed', 'cancelled')"),
        {"ids": list(ids)},
    ).scalars()
    return set(rows)


def _locked_state(connection: Connection, batch_id: UUID) -> str:
    states = lock_states(connection, [batch_id])
    if batch_id not in states:
        raise unknown_batch(batch_id)
    return states[batch_id]


def _complete(connection: Connection, trace_contexts: Mapping[UUID, str | None]) -> list[UUID]:
    rows = connection.execute(
        text("""
            UPDATE batches SET state = 'completed', finished_at = now()
            WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'running' AND completed + failed + cancelled >= total
            RETURNING id, callback_endpoint_id, callback_url,
                ARRAY(SELECT DISTINCT recipe_id FROM inspections WHERE batch_id = batches.id) AS recipe_ids
        """),
        {"ids": list(trace_contexts)},
    ).all()
    events.emit(
        connection,
        [
            Event(
                EventType.BATCH_COMPLETED,
                str(row.id),
                row.recipe_ids,
                Callback(row.callback_endpoint_id, row.callback_url) if row.callback_endpoint_id else None,
                trace_contexts[row.id],
            )
            for row in rows
        ],
    )
    return [row.id for row in rows]
