"""Work in flight: claiming it, finishing it, giving it back, and finding what was forgotten.

    queued ──claim (attempt + 1, lease)──► running ──finish──► completed | failed      (a row of `inspections`)
      ▲  ▲                                   │  │
      │  └──release (model not loadable)─────┘  └──cancel──► cancelled                 (likewise)
      └─────rescue (lease ran out)───────────┘

Every transition is one statement, guarded by the state that it leaves. `attempt` is a fence: a finish counts only for
the attempt that claimed the row, so whatever a lost worker still writes finds nothing to write to.
"""

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.errors import Failure
from core.feed import events
from core.feed.events import Callback, Event, EventType
from core.models.verdicts import Verdict
from core.queue import batches, bulk_share
from core.tables import SUBMITTED

LOST_AFTER_SECONDS = 5.0
"""A message that was published this long ago while its queue is empty is taken for lost."""

_SUBMITTED = ", ".join(SUBMITTED)
_MOVED = ", ".join(f"moved.{name}" for name in SUBMITTED)


@dataclass(frozen=True)
class Claim:
    """One inspection that a worker holds, with the version and threshold that were in force when it was claimed."""

    id: UUID
    attempt: int
    model_version_id: int
    threshold: float
    review_threshold: float | None
    image_day: dt.date
    image_sha256: bytes
    rescues: int
    queued_ms: float
    overdue: bool


@dataclass(frozen=True)
class Outcome:
    """How the examination of one claim ended; not yet written."""

    id: UUID
    attempt: int
    status: Literal["completed", "failed"]
    anomaly_score: float | None = None
    verdict: Verdict | None = None
    reasons: list[str] = field(default_factory=list)
    error_code: Failure | None = None
    error_detail: str | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """What became final in one transaction."""

    inspections: list[UUID]
    batches: list[UUID]
    runs: list[UUID] = field(default_factory=list)


_CLAIM = """
WITH picked AS (
    SELECT id FROM work
    WHERE state = 'queued' AND recipe_id = :recipe_id AND {which}
    ORDER BY id
    LIMIT :at_most
    FOR UPDATE {locked}
)
UPDATE work SET
    state = 'running',
    attempt = work.attempt + 1,
    started_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => :lease),
    worker = :worker,
    model_version_id = recipes.active_version_id,
    threshold_id = limits.id,
    threshold = limits.threshold,
    review_threshold = limits.review_threshold
FROM picked
JOIN recipes ON recipes.id = :recipe_id
JOIN work AS mine ON mine.id = picked.id
JOIN LATERAL (
    SELECT thresholds.id, thresholds.threshold, thresholds.review_threshold
    FROM thresholds
    WHERE thresholds.model_version_id = recipes.active_version_id
      AND (thresholds.station_id IS NULL OR thresholds.station_id = mine.station_id)
    ORDER BY thresholds.station_id IS NULL, thresholds.id DESC
    LIMIT 1
) AS limits ON true
WHERE work.id = picked.id
RETURNING work.id, work.attempt, work.model_version_id, work.threshold, work.review_threshold,
    work.image_day, work.image_sha256, work.rescues,
    extract(epoch FROM work.started_at - work.created_at) * 1000 AS queued_ms,
    coalesce(work.deadline_at < clock_timestamp(), false) AS overdue
"""

# A message must not be spent on rows that its publisher is just marking as published, so these are waited for.
_NAMED = text(_CLAIM.format(which="id = ANY(CAST(:ids AS uuid[]))", locked=""))
_OLDEST = text(_CLAIM.format(which="priority = :priority", locked="SKIP LOCKED"))


def claim(
    connection: Connection,
    *,
    recipe_id: int,
    ids: Sequence[UUID],
    priority: str,
    at_most: int,
    lease_seconds: float,
    worker: str,
) -> list[Claim]:
    """Claim the named inspections as far as they are still queued, then the oldest queued ones up to `at_most`.

    The second step makes full minibatches of small messages, and claims rows whose message was lost as long as any
    message of their kind arrives; it is all there is where none is named. All of them get the version that is active
    now. Nothing is claimed for a recipe without one.
    """
    common = {"recipe_id": recipe_id, "lease": lease_seconds, "worker": worker}
    rows = list(connection.execute(_NAMED, {**common, "ids": list(ids), "at_most": at_most}))
    if (rows or not ids) and len(rows) < at_most:
        rows += connection.execute(_OLDEST, {**common, "priority": priority, "at_most": at_most - len(rows)})
    return [Claim(**{**row._mapping, "queued_ms": float(row.queued_ms)}) for row in rows]


_FINISH = text(f"""
WITH outcome AS (
    SELECT * FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:statuses AS text[]), CAST(:scores AS float8[]),
        CAST(:verdicts AS text[]), CAST(:reasons AS jsonb[]), CAST(:codes AS text[]), CAST(:details AS text[]),
        CAST(:timings AS jsonb[])
    ) AS _(id, attempt, status, anomaly_score, verdict, reasons, error_code, error_detail, timings_ms)
), mine AS (
    SELECT work.id FROM work JOIN outcome ON work.id = outcome.id AND work.attempt = outcome.attempt
    WHERE work.state = 'running'
    ORDER BY work.id
    FOR UPDATE OF work
), moved AS (
    DELETE FROM work USING mine WHERE work.id = mine.id RETURNING work.*
)
INSERT INTO inspections (
    {_SUBMITTED}, status, anomaly_score, verdict, reasons, error_code, error_detail, timings_ms, finished_at
)
SELECT {_MOVED}, outcome.status, outcome.anomaly_score, outcome.verdict,
    ARRAY(SELECT jsonb_array_elements_text(outcome.reasons)), outcome.error_code, outcome.error_detail,
    outcome.timings_ms || jsonb_build_object(
        'total', round(extract(epoch FROM clock_timestamp() - moved.created_at) * 1000, 1)
    ),
    clock_timestamp()
FROM moved JOIN outcome ON outcome.id = moved.id
RETURNING id, recipe_id, batch_id, callback_endpoint_id, callback_url, status, verdict, priority
""")  # noqa: S608 - the column names are constants of ours


def finish(connection: Connection, outcomes: Sequence[Outcome]) -> Finished:
    """Write the outcomes that are still ours to write, with their deliveries, and count them in their batches; the rest
    is void. A trigger enters them into the feed."""
    rows = connection.execute(
        _FINISH,
        {
            "ids": [one.id for one in outcomes],
            "attempts": [one.attempt for one in outcomes],
            "statuses": [one.status for one in outcomes],
            "scores": [one.anomaly_score for one in outcomes],
            "verdicts": [one.verdict for one in outcomes],
            "reasons": [json.dumps(one.reasons) for one in outcomes],
            "codes": [one.error_code for one in outcomes],
            "details": [one.error_detail for one in outcomes],
            "timings": [json.dumps(one.timings_ms) for one in outcomes],
        },
    ).all()
    events.emit(connection, [_event(row) for row in rows])
    finished = _count(connection, rows)
    if bulk := sum(row.priority == "bulk" for row in rows):
        bulk_share.note_finished(connection, bulk)
    return finished


def _event(row: Row[Any]) -> Event:
    type_ = EventType.INSPECTION_FAILED if row.status == "failed" else EventType.INSPECTION_COMPLETED
    callback = Callback(row.callback_endpoint_id, row.callback_url) if row.callback_endpoint_id else None
    return Event(type_, str(row.id), [row.recipe_id], callback)


def _count(connection: Connection, rows: Sequence[Row[Any]]) -> Finished:
    """Count rows that became final in their batches, which comes last; into the feed they have come by themselves."""
    counts: dict[UUID, batches.Counts] = defaultdict(batches.Counts)
    for row in rows:
        if row.batch_id is not None:
            counts[row.batch_id].add(row.status, row.verdict)
    return Finished([row.id for row in rows], batches.add_to_counters(connection, counts))


_CANCEL = f"""
WITH mine AS (
    SELECT id FROM work WHERE {{which}} ORDER BY id FOR UPDATE {{locked}}
), moved AS (
    DELETE FROM work USING mine WHERE work.id = mine.id RETURNING work.*
)
INSERT INTO inspections ({_SUBMITTED}, status, reasons, timings_ms)
SELECT {_MOVED}, 'cancelled', '{{{{}}}}', '{{{{}}}}' FROM moved
RETURNING id, batch_id, status, verdict
"""  # noqa: S608 - the column names are constants of ours
_CANCEL_ONE = text(_CANCEL.format(which="id = :id", locked=""))
_CANCEL_OF_BATCH = text(_CANCEL.format(which="batch_id = :id", locked=""))
_CANCEL_LATECOMERS = text(_CANCEL.format(which="batch_id = :id", locked="SKIP LOCKED"))


def cancel(connection: Connection, inspection_id: UUID) -> Finished:
    """Cancel one inspection that is not final; whatever a worker makes of it is void. Empty if there is none."""
    return _count(connection, connection.execute(_CANCEL_ONE, {"id": inspection_id}).all())


def cancel_batch(connection: Connection, batch_id: UUID) -> Finished:
    """Cancel a batch and what is not final of it; a completed batch refuses.

    Rows of `work` are locked before the batch, as a finish does. Inspections that joined in between are cancelled in
    a second pass, unless a worker is just finishing them.
    """
    rows = list(connection.execute(_CANCEL_OF_BATCH, {"id": batch_id}))
    batches.mark_cancelled(connection, batch_id)
    rows += connection.execute(_CANCEL_LATECOMERS, {"id": batch_id})
    finished = _count(connection, rows)
    return Finished(finished.inspections, [batch_id])


def release(connection: Connection, claims: Sequence[Claim], because: Failure | None) -> None:
    """Release claims: `running → queued`. The dispatcher publishes them again after a while.

    `because` is what they fail with at their deadline; None where the deadline itself is the reason.
    """
    connection.execute(
        text("""
            WITH mine AS (
                SELECT work.id FROM work
                JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS held(id, attempt)
                  ON work.id = held.id AND work.attempt = held.attempt
                WHERE work.state = 'running' ORDER BY work.id FOR UPDATE OF work
            )
            UPDATE work SET state = 'queued', released_because = :because, published_at = clock_timestamp(),
                lease_until = NULL, worker = NULL, started_at = NULL, model_version_id = NULL, threshold_id = NULL,
                threshold = NULL, review_threshold = NULL
            FROM mine WHERE work.id = mine.id
        """),
        {"ids": [one.id for one in claims], "attempts": [one.attempt for one in claims], "because": because},
    )


def renew(connection: Connection, claims: Sequence[Claim], lease_seconds: float) -> None:
    """Extend the leases of claims that are still held and still worked on."""
    connection.execute(
        text("""
            WITH mine AS (
                SELECT work.id FROM work
                JOIN unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS held(id, attempt)
                  ON work.id = held.id AND work.attempt = held.attempt
                WHERE work.state = 'running' ORDER BY work.id FOR UPDATE OF work SKIP LOCKED
            )
            UPDATE work SET lease_until = clock_timestamp() + make_interval(secs => :lease)
            FROM mine WHERE work.id = mine.id
        """),
        {
            "ids": [one.id for one in claims],
            "attempts": [one.attempt for one in claims],
            "lease": lease_seconds,
        },
    )


def reclaim_expired_leases(connection: Connection, *, at_most: int = 1000) -> int:
    """`running → queued` for expired leases; returns how many. Their images are suspect from now on."""
    return connection.execute(
        text("""
            WITH expired AS (
                SELECT id FROM work WHERE state = 'running' AND lease_until < clock_timestamp()
                ORDER BY id LIMIT :at_most FOR UPDATE SKIP LOCKED
            )
            UPDATE work SET state = 'queued', rescues = rescues + 1, published_at = NULL, lease_until = NULL,
                worker = NULL, started_at = NULL, model_version_id = NULL, threshold_id = NULL, threshold = NULL,
                review_threshold = NULL
            FROM expired WHERE work.id = expired.id
        """),
        {"at_most": at_most},
    ).rowcount


def fail_overdue(connection: Connection, *, at_most: int = 1000) -> Finished:
    """Fail queued inspections whose deadline has passed, with the reason for which they were still queued."""
    rows = connection.execute(
        text("""
            UPDATE work SET state = 'running', attempt = attempt + 1, started_at = clock_timestamp(),
                lease_until = clock_timestamp()
            FROM (
                SELECT id FROM work WHERE deadline_at < clock_timestamp() AND state = 'queued'
                ORDER BY id LIMIT :at_most FOR UPDATE SKIP LOCKED
            ) AS overdue
            WHERE work.id = overdue.id
            RETURNING work.id, work.attempt, work.released_because
        """),
        {"at_most": at_most},
    ).all()
    return finish(connection, [deadline_outcome(row.id, row.attempt, row.released_because) for row in rows])


def deadline_outcome(inspection_id: UUID, attempt: int, released_because: str | None = None) -> Outcome:
    """The outcome of an inspection that no worker could score before its deadline."""
    code = Failure(released_because) if released_because else Failure.DEADLINE_EXCEEDED
    detail = (
        "No worker could load the model version before the deadline."
        if code is Failure.MODEL_UNAVAILABLE
        else "The deadline passed before a worker took the image."
    )
    return Outcome(inspection_id, attempt, "failed", error_code=code, error_detail=detail)


@dataclass(frozen=True)
class Publishable:
    """A queued inspection that a message should name."""

    id: UUID
    recipe_id: int
    priority: str


_PUBLISHABLE = """
WITH picked AS (
    SELECT work.id FROM work
    JOIN recipes ON recipes.id = work.recipe_id AND recipes.active_version_id IS NOT NULL
    WHERE work.state = 'queued' AND {which}
    ORDER BY work.id LIMIT :at_most
    FOR UPDATE OF work SKIP LOCKED
)
UPDATE work SET published_at = clock_timestamp() FROM picked WHERE work.id = picked.id
RETURNING work.id, work.recipe_id, work.priority
"""
_UNPUBLISHED = text(
    _PUBLISHABLE.format(
        which="work.published_at IS NULL AND work.created_at < clock_timestamp() - make_interval(secs => 1)"
    )
)
_LOST = text(
    _PUBLISHABLE.format(
        which="""work.priority = :priority
            AND work.published_at < clock_timestamp() - make_interval(secs => :lost_after)
            AND (:queue_is_empty OR EXISTS (
                SELECT FROM work AS later
                WHERE later.state = 'running' AND later.priority = work.priority
                  AND later.published_at > work.published_at
            ))"""
    )
)


def take_unpublished(connection: Connection, *, at_most: int) -> list[Publishable]:
    """Queued inspections that no message names. They are marked as published: the caller publishes them."""
    rows = connection.execute(_UNPUBLISHED, {"at_most": at_most})
    return [Publishable(**row._mapping) for row in rows]


def take_with_lost_message(
    connection: Connection, *, priority: str, queue_is_empty: bool, at_most: int
) -> list[Publishable]:
    """Queued inspections whose message is taken for lost: published some seconds ago, while their queue is empty or
    rows that were published later have been claimed. Publishing one again is harmless and happens every few seconds
    at most."""
    rows = connection.execute(
        _LOST,
        {
            "priority": priority,
            "queue_is_empty": queue_is_empty,
            "lost_after": LOST_AFTER_SECONDS,
            "at_most": at_most,
        },
    )
    return [Publishable(**row._mapping) for row in rows]


def mark_published(connection: Connection, ids: Sequence[UUID]) -> None:
    """Note that a message names these rows now; one that is being claimed already needs no note."""
    connection.execute(
        text("""
            WITH waiting AS (
                SELECT id FROM work
                WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued' AND published_at IS NULL
                ORDER BY id FOR UPDATE SKIP LOCKED
            )
            UPDATE work SET published_at = clock_timestamp() FROM waiting WHERE work.id = waiting.id
        """),
        {"ids": list(ids)},
    )


def next_bulk_recipe(connection: Connection, after: int) -> int | None:
    """A recipe with bulk inspections that wait and a version to score them: the next one beyond `after`, going round
    in the order of the ids; None where there is none."""
    found: int | None = connection.execute(
        text("""
            SELECT id FROM recipes
            WHERE active_version_id IS NOT NULL AND EXISTS (
                SELECT FROM work WHERE state = 'queued' AND priority = 'bulk' AND work.recipe_id = recipes.id
            )
            ORDER BY id <= :after, id LIMIT 1
        """),
        {"after": after},
    ).scalar()
    return found


def depth(connection: Connection) -> int:
    """How many inspections are in flight."""
    return int(connection.execute(text("SELECT count(*) FROM work")).scalar_one())
