"""Planning: divides a run's source into slices, a bounded number ahead of the workers.

A planner claims a run with a lease and a fencing token. Each step commits a slice together with the cursor behind it,
so after a crash the next planner continues without planning an image twice or leaving one out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from core.rescoring import runs
from core.rescoring.runs import Run
from core.rescoring.slices import runnable_run_ids
from core.settings import MAX_LEASE_SECONDS

SLICES_AHEAD = 12
"""The most slices of a run that are planned ahead or being scored."""
REPUBLISH_SECONDS = 2.0
"""The planning message of a run is not sent again within this time, whether or not the last one arrived."""


@dataclass(frozen=True)
class RunClaim:
    """A run that a planner has claimed.

    Attributes:
        cursor: the position in its source up to which it is planned.
        free_slices: how many slices may be added.
    """

    run: Run
    attempt: int
    cursor: dict[str, Any]
    free_slices: int


def take_due(connection: Connection) -> list[UUID]:
    """Return the runs that may work now and may have more slices, and record that their planning was requested."""
    rows: Any = connection.execute(
        text("""
            WITH due AS (
                SELECT id FROM rescore_runs AS run
                WHERE id = ANY(CAST(:runs AS uuid[])) AND planned_all_at IS NULL
                  AND (plan_lease_until IS NULL OR plan_lease_until NOT BETWEEN clock_timestamp()
                    AND clock_timestamp() + make_interval(secs => :longest))
                  AND (plan_published_at IS NULL OR plan_published_at NOT BETWEEN
                    clock_timestamp() - make_interval(secs => :republish) AND clock_timestamp())
                  AND (SELECT count(*) FROM rescore_slices WHERE run_id = run.id) < :ahead
                ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE rescore_runs AS run SET plan_published_at = clock_timestamp() FROM due WHERE run.id = due.id
            RETURNING run.id
        """),
        {
            "runs": runnable_run_ids(connection),
            "republish": REPUBLISH_SECONDS,
            "ahead": SLICES_AHEAD,
            "longest": MAX_LEASE_SECONDS,
        },
    ).scalars()
    return sorted(rows)


def claim(connection: Connection, run_id: UUID, *, lease_seconds: float) -> RunClaim | None:
    """Claim a run to plan it. Returns None if another planner has claimed it, or if there is nothing to plan now."""
    if run_id not in runnable_run_ids(connection):
        return None
    row = connection.execute(
        text("""
            UPDATE rescore_runs SET plan_attempt = plan_attempt + 1,
                plan_lease_until = clock_timestamp() + make_interval(secs => :lease)
            WHERE id = :id AND planned_all_at IS NULL
              AND (plan_lease_until IS NULL OR plan_lease_until NOT BETWEEN clock_timestamp()
                AND clock_timestamp() + make_interval(secs => :longest))
            RETURNING plan_attempt, cursor, (SELECT count(*) FROM rescore_slices WHERE run_id = :id) AS in_flight
        """),
        {"id": run_id, "lease": lease_seconds, "longest": MAX_LEASE_SECONDS},
    ).one_or_none()
    if row is None:
        return None
    return RunClaim(runs.get(connection, run_id), row.plan_attempt, row.cursor, max(0, SLICES_AHEAD - row.in_flight))


# The condition under which a claim is still valid.
_CLAIMED = "id = :id AND plan_attempt = :attempt AND state IN ('queued', 'running') AND planned_all_at IS NULL"


def renew(connection: Connection, claim: RunClaim, *, lease_seconds: float, total: int | None = None) -> bool:
    """Extend the lease, and store the number of images of the source if it is given.

    Returns False if the claim was lost.
    """
    renewed = connection.execute(
        text(f"""
            UPDATE rescore_runs SET plan_lease_until = clock_timestamp() + make_interval(secs => :lease),
                total = coalesce(:total, total)
            WHERE {_CLAIMED} RETURNING id
        """).bindparams(bindparam("total", type_=BigInteger)),  # noqa: S608
        {"id": claim.run.id, "attempt": claim.attempt, "lease": lease_seconds, "total": total},
    ).one_or_none()
    return renewed is not None


_STEP = text(f"""
UPDATE rescore_runs SET cursor = :cursor, planned = planned + :images, state = 'running', reason = NULL,
    total = CASE WHEN kind = 'challenger' THEN planned + :images ELSE total END,
    started_at = coalesce(started_at, clock_timestamp()),
    plan_lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE {_CLAIMED} RETURNING planned
""").bindparams(bindparam("cursor", type_=JSONB))  # noqa: S608 - the condition is a constant


def lock_planned_count(connection: Connection, claim: RunClaim) -> int | None:
    """Lock the run and return how many images were planned so far, or None if the claim was lost."""
    planned = connection.execute(
        text(f"SELECT planned FROM rescore_runs WHERE {_CLAIMED} FOR NO KEY UPDATE"),  # noqa: S608
        {"id": claim.run.id, "attempt": claim.attempt},
    ).scalar()
    return None if planned is None else int(planned)


def is_all_planned(connection: Connection, claim: RunClaim) -> bool:
    """Whether all images of the source are planned. False if the claim was lost."""
    all_planned = connection.execute(
        text(f"SELECT planned >= total FROM rescore_runs WHERE {_CLAIMED}"),  # noqa: S608
        {"id": claim.run.id, "attempt": claim.attempt},
    ).scalar()
    return bool(all_planned)


def advance(
    connection: Connection, claim: RunClaim, *, cursor: dict[str, Any], images: int, lease_seconds: float
) -> int | None:
    """Move the cursor past that many images. Returns the number of the first of them, or None if the claim was lost."""
    planned = connection.execute(
        _STEP,
        {
            "id": claim.run.id,
            "attempt": claim.attempt,
            "cursor": cursor,
            "images": images,
            "lease": lease_seconds,
        },
    ).scalar()
    return None if planned is None else int(planned) - images + 1


_ADD = text("INSERT INTO rescore_slices (run_id, first, items) VALUES (:run_id, :first, :items)").bindparams(
    bindparam("items", type_=JSONB)
)


def add_slice(
    connection: Connection,
    claim: RunClaim,
    items: Sequence[dict[str, Any]],
    *,
    cursor: dict[str, Any],
    lease_seconds: float,
) -> bool:
    """Add a slice and move the cursor behind it. Returns False if the claim was lost or the run may not work now."""
    first = advance(connection, claim, cursor=cursor, images=len(items), lease_seconds=lease_seconds)
    if first is None:
        return False
    if items:
        connection.execute(_ADD, {"run_id": claim.run.id, "first": first, "items": list(items)})
    return True


def finish(connection: Connection, claim: RunClaim) -> None:
    """Record that the whole source is planned. This completes a run without images."""
    connection.execute(
        text(f"""
            UPDATE rescore_runs SET planned_all_at = clock_timestamp(), plan_lease_until = NULL, state = 'running',
                started_at = coalesce(started_at, clock_timestamp()), total = planned
            WHERE {_CLAIMED}
        """),  # noqa: S608
        {"id": claim.run.id, "attempt": claim.attempt},
    )
    runs.end_if_done(connection, claim.run.id)


def record_waiting_reason(connection: Connection, claim: RunClaim, reason: str) -> None:
    """Store the reason why nothing can be planned at the moment. The next step clears it."""
    connection.execute(
        text(f"UPDATE rescore_runs SET reason = :reason WHERE {_CLAIMED}"),  # noqa: S608
        {"id": claim.run.id, "attempt": claim.attempt, "reason": reason},
    )


def release(connection: Connection, claim: RunClaim) -> None:
    """Release the run, so that a planner can claim it again."""
    connection.execute(
        text("UPDATE rescore_runs SET plan_lease_until = NULL WHERE id = :id AND plan_attempt = :attempt"),
        {"id": claim.run.id, "attempt": claim.attempt},
    )
