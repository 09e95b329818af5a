"""Move inspections from `work` to `inspections` once they are final: completed, failed or cancelled."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.errors import Code, Failure, Refused
from core.feed import events
from core.feed.events import Callback, Event, EventType
from core.models.verdicts import Verdict
from core.queue import batches, bulk_share
from core.tables import SUBMITTED

CANCEL_TRIES = 10

_UNTRACED: Mapping[UUID, str | None] = {}

_SUBMITTED = ", ".join(SUBMITTED)
_MOVED = ", ".join(f"moved.{name}" for name in SUBMITTED)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one claim, not yet written.

    Attributes:
        brightness, contrast, sharpness: of its image, see `core.vision.input.input_checks.ImageMeasurements`; None if
            they were not measured.
    """

    id: UUID
    attempt: int
    status: Literal["completed", "failed"]
    anomaly_score: float | None = None
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)
    error_code: Failure | None = None
    error_detail: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None


class FinalKind(NamedTuple):
    """What inspections that became final are counted by."""

    recipe_id: int
    status: str
    verdict: str | None
    error_code: str | None


@dataclass(frozen=True)
class Finished:
    """The inspections, batches and runs that became final in one transaction.

    Attributes:
        counts: how many of the inspections are of each kind.
    """

    inspections: list[UUID]
    batches: list[UUID]
    runs: list[UUID] = field(default_factory=list)
    counts: Mapping[FinalKind, int] = field(default_factory=dict)


_FINISH = text(f"""
WITH outcome AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:statuses AS text[]), CAST(:scores AS float8[]),
        CAST(:verdicts AS text[]), CAST(:reasons AS jsonb[]), CAST(:codes AS text[]), CAST(:details AS text[]),
        CAST(:timings AS jsonb[]), CAST(:brightness AS real[]), CAST(:contrast AS real[]), CAST(:sharpness AS real[])
    ) AS _(id, attempt, status, anomaly_score, verdict, reasons, error_code, error_detail, timings_ms, brightness,
        contrast, sharpness)
), mine AS (
    SELECT work.id FROM work JOIN outcome ON work.id = outcome.id AND work.attempt = outcome.attempt
    WHERE work.state = 'running'
    ORDER BY work.id
    FOR UPDATE OF work
), moved AS (
    DELETE FROM work USING mine WHERE work.id = mine.id RETURNING work.*
)
INSERT INTO inspections (
    {_SUBMITTED}, status, anomaly_score, verdict, reasons, error_code, error_detail, timings_ms, finished_at,
    brightness, contrast, sharpness
)
SELECT {_MOVED}, outcome.status, outcome.anomaly_score, outcome.verdict,
    ARRAY(SELECT jsonb_array_elements_text(outcome.reasons)), outcome.error_code, outcome.error_detail,
    outcome.timings_ms || jsonb_build_object(
        'total', round(extract(epoch FROM clock_timestamp() - moved.created_at) * 1000, 1)
    ),
    clock_timestamp(), outcome.brightness, outcome.contrast, outcome.sharpness
FROM moved JOIN outcome ON outcome.id = moved.id
RETURNING id, recipe_id, batch_id, callback_endpoint_id, callback_url, status, verdict, error_code, priority
""")  # noqa: S608 - the column names are constants


def finish(
    connection: Connection, outcomes: Sequence[Outcome], trace_contexts: Mapping[UUID, str | None] = _UNTRACED
) -> Finished:
    """Write the outcomes of claims that are still held, their deliveries and the counters of their batches.

    Outcomes of claims that were lost are dropped. A trigger writes the feed entries.

    Args:
        trace_contexts: where the traces of the deliveries go on from, by inspection.
    """
    rows = connection.execute(
        _FINISH,
        {
            "ids": [outcome.id for outcome in outcomes],
            "attempts": [outcome.attempt for outcome in outcomes],
            "statuses": [outcome.status for outcome in outcomes],
            "scores": [outcome.anomaly_score for outcome in outcomes],
            "verdicts": [outcome.verdict for outcome in outcomes],
            "reasons": [json.dumps(outcome.reasons) for outcome in outcomes],
            "codes": [outcome.error_code for outcome in outcomes],
            "details": [outcome.error_detail for outcome in outcomes],
            "timings": [json.dumps(outcome.timings_ms) for outcome in outcomes],
            "brightness": [outcome.brightness for outcome in outcomes],
            "contrast": [outcome.contrast for outcome in outcomes],
            "sharpness": [outcome.sharpness for outcome in outcomes],
        },
    ).all()
    events.emit(connection, [_event(row, trace_contexts.get(row.id)) for row in rows])
    finished = _count(connection, rows, trace_contexts)
    if bulk := sum(row.priority == "bulk" for row in rows):
        bulk_share.note_finished(connection, bulk)
    return finished


def _event(row: Row[Any], trace_context: str | None) -> Event:
    type_ = EventType.INSPECTION_FAILED if row.status == "failed" else EventType.INSPECTION_COMPLETED
    callback = Callback(row.callback_endpoint_id, row.callback_url) if row.callback_endpoint_id else None
    return Event(type_, str(row.id), [row.recipe_id], callback, trace_context)


def _count(
    connection: Connection, rows: Sequence[Row[Any]], trace_contexts: Mapping[UUID, str | None] = _UNTRACED
) -> Finished:
    """Count rows that became final in their batches. Call it last: it locks rows that many transactions write."""
    counts: dict[UUID, batches.Counts] = defaultdict(batches.Counts)
    for row in rows:
        if row.batch_id is not None:
            counts[row.batch_id].add(row.status, row.verdict)
            counts[row.batch_id].trace_context = trace_contexts.get(row.id) or counts[row.batch_id].trace_context
    kinds = Counter(FinalKind(row.recipe_id, row.status, row.verdict, row.error_code) for row in rows)
    return Finished([row.id for row in rows], batches.add_to_counters(connection, counts), counts=kinds)


_CANCEL = f"""
WITH mine AS (
    SELECT id FROM work WHERE {{which}} ORDER BY id FOR UPDATE
), moved AS (
    DELETE FROM work USING mine WHERE work.id = mine.id RETURNING work.*
)
INSERT INTO inspections ({_SUBMITTED}, status, reasons, timings_ms)
SELECT {_MOVED}, 'cancelled', '{{{{}}}}', '{{{{}}}}' FROM moved
RETURNING id, recipe_id, batch_id, status, verdict, error_code
"""  # noqa: S608 - the column names are constants
_CANCEL_ONE = text(_CANCEL.format(which="id = :id"))
_CANCEL_OF_BATCH = text(_CANCEL.format(which="batch_id = :id"))
_HAS_WORK = text("SELECT EXISTS (SELECT FROM work WHERE batch_id = :id)")


def cancel(connection: Connection, inspection_id: UUID) -> Finished:
    """Cancel one inspection that is not final; a worker's later outcome is dropped. Empty if it does not exist."""
    return _count(connection, connection.execute(_CANCEL_ONE, {"id": inspection_id}).all())


def cancel_batch(connection: Connection, batch_id: UUID) -> Finished:
    """Cancel a batch and its inspections that are not final.

    Rows of `work` are locked before the batch, as in a finish. If inspections joined the batch in between, everything
    is tried again: then none of them can complete in a cancelled batch.

    Raises:
        Refused: INVALID_TRANSITION if the batch is completed; NOT_FOUND; BUSY if images keep joining it.
    """
    for _ in range(CANCEL_TRIES):
        with connection.begin_nested() as savepoint:
            rows = connection.execute(_CANCEL_OF_BATCH, {"id": batch_id}).all()
            batches.mark_cancelled(connection, batch_id)
            if not connection.execute(_HAS_WORK, {"id": batch_id}).scalar_one():
                break
            savepoint.rollback()  # releases the locks, which a worker that is finishing may wait for
    else:
        raise Refused(Code.BUSY, f"Batch {batch_id} could not be cancelled, because images keep joining it. Retry.")
    finished = _count(connection, rows)
    return Finished(finished.inspections, [batch_id], counts=finished.counts)


def fail_overdue(connection: Connection, *, at_most: int = 1000) -> Finished:
    """Fail queued inspections whose deadline has passed, with the code that explains why they were still queued."""
    rows = connection.execute(
        text("""
            UPDATE work SET state = 'running', attempt = attempt + 1, started_at = clock_timestamp(),
                lease_until = clock_timestamp()
            FROM (
                SELECT id FROM work WHERE deadline_at < clock_timestamp() AND state = 'queued'
                ORDER BY id LIMIT :at_most FOR UPDATE SKIP LOCKED
            ) AS overdue
            WHERE work.id = overdue.id
            RETURNING work.id, work.attempt, work.released_because, work.trace_context
        """),
        {"at_most": at_most},
    ).all()
    return finish(
        connection,
        [deadline_outcome(row.id, row.attempt, row.released_because) for row in rows],
        {row.id: row.trace_context for row in rows},
    )


def deadline_outcome(inspection_id: UUID, attempt: int, released_because: str | None = None) -> Outcome:
    """The outcome of an inspection that was not scored before its deadline."""
    code = Failure(released_because) if released_because else Failure.DEADLINE_EXCEEDED
    detail = (
        "No worker could load the model version before the deadline."
        if code is Failure.MODEL_UNAVAILABLE
        else "The deadline passed before a worker took the image."
    )
    return Outcome(inspection_id, attempt, "failed", error_code=code, error_detail=detail)
