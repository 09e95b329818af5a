"""Claim queued inspections for a worker, and release them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from core.errors import Failure


@dataclass(frozen=True)
class Claim:
    """An inspection that a worker has claimed, with the version and threshold in force at that time.

    Attributes:
        rescues: how often its lease expired; if ever, the image may have killed its worker.
        queued_ms: milliseconds from acceptance to this claim.
        overdue: whether its deadline has passed.
        batch_id: for the log.
        trace_context: of the upload; None if it is not traced.
    """

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
    batch_id: UUID | None = None
    trace_context: str | None = None


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
    work.image_day, work.image_sha256, work.rescues, work.batch_id, work.trace_context,
    extract(epoch FROM work.started_at - work.created_at) * 1000 AS queued_ms,
    coalesce(work.deadline_at < clock_timestamp(), false) AS overdue
"""

# Wait for rows that are just being marked; skipping them would waste the message.
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
    """Claim those of `ids` that are still queued, then the oldest queued inspections up to `at_most`.

    The second step fills minibatches up when messages are small, and claims rows whose message was lost. Without `ids`
    only the second step runs. All claims get the version that is active now; a recipe without one has no claims.
    """
    common = {"recipe_id": recipe_id, "lease": lease_seconds, "worker": worker}
    rows = list(connection.execute(_NAMED, {**common, "ids": list(ids), "at_most": at_most}))
    if (rows or not ids) and len(rows) < at_most:
        rows += connection.execute(_OLDEST, {**common, "priority": priority, "at_most": at_most - len(rows)})
    return [Claim(**{**row._mapping, "queued_ms": float(row.queued_ms)}) for row in rows]


def release(connection: Connection, claims: Sequence[Claim], because: Failure | None) -> None:
    """Release claims: `running → queued`. The dispatcher publishes them again after some seconds.

    Args:
        because: the code with which they fail at their deadline; None for `deadline_exceeded`.
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
        {"ids": [claim.id for claim in claims], "attempts": [claim.attempt for claim in claims], "because": because},
    )
