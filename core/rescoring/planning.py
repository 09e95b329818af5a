"""Planning: cutting a run's source into slices, a bounded number ahead of the workers, from where it stopped.

A planner holds a run by a lease and a fence. Each step commits slices and the cursor behind them together, so whoever
goes on after a crash plans nothing twice and leaves nothing out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from core.rescoring import runs
from core.rescoring.runs import Run
from core.rescoring.slices import runs_open_now

SLICES_AHEAD = 12
"""Slices of a run that are planned ahead or in hand, at most."""
ASK_AGAIN_SECONDS = 2.0
"""A run is not asked to be planned again before this, whether or not the last message arrived."""


@dataclass(frozen=True)
class Plan:
    """A run that a planner holds.

    Attributes:
        cursor: where its source was left.
        room: how many slices may be added.
    """

    run: Run
    attempt: int
    cursor: dict[str, Any]
    room: int


def due(connection: Connection) -> list[UUID]:
    """The runs that may run now and have room for more slices; they are marked as asked for."""
    rows: Any = connection.execute(
        text("""
            WITH waiting AS (
                SELECT id FROM rescore_runs AS run
                WHERE id = ANY(CAST(:runs AS uuid[])) AND planned_all_at IS NULL
                  AND (plan_lease_until IS NULL OR plan_lease_until < clock_timestamp())
                  AND (plan_published_at IS NULL
                    OR plan_published_at < clock_timestamp() - make_interval(secs => :again))
                  AND (SELECT count(*) FROM rescore_slices WHERE run_id = run.id) < :ahead
                ORDER BY id FOR UPDATE SKIP LOCKED
            )
            UPDATE rescore_runs AS run SET plan_published_at = clock_timestamp() FROM waiting WHERE run.id = waiting.id
            RETURNING run.id
        """),
        {"runs": runs_open_now(connection), "again": ASK_AGAIN_SECONDS, "ahead": SLICES_AHEAD},
    ).scalars()
    return sorted(rows)


def claim(connection: Connection, run_id: UUID, *, lease_seconds: float) -> Plan | None:
    """Take a run to plan it; None where another planner holds it, or there is nothing to plan now."""
    if run_id not in runs_open_now(connection):
        return None
    row = connection.execute(
        text("""
            UPDATE rescore_runs SET plan_attempt = plan_attempt + 1,
                plan_lease_until = clock_timestamp() + make_interval(secs => :lease)
            WHERE id = :id AND planned_all_at IS NULL
              AND (plan_lease_until IS NULL OR plan_lease_until < clock_timestamp())
            RETURNING plan_attempt, cursor, (SELECT count(*) FROM rescore_slices WHERE run_id = :id) AS in_flight
        """),
        {"id": run_id, "lease": lease_seconds},
    ).one_or_none()
    if row is None:
        return None
    return Plan(runs.get(connection, run_id), row.plan_attempt, row.cursor, max(0, SLICES_AHEAD - row.in_flight))


_MINE = "id = :id AND plan_attempt = :attempt AND state IN ('queued', 'running') AND planned_all_at IS NULL"


def renew(connection: Connection, plan: Plan, *, lease_seconds: float, total: int | None = None) -> bool:
    """Extend the lease, and note how many images the source has once they are counted; False where it is lost."""
    held = connection.execute(
        text(f"""
            UPDATE rescore_runs SET plan_lease_until = clock_timestamp() + make_interval(secs => :lease),
                total = coalesce(:total, total)
            WHERE {_MINE} RETURNING id
        """).bindparams(bindparam("total", type_=BigInteger)),  # noqa: S608
        {"id": plan.run.id, "attempt": plan.attempt, "lease": lease_seconds, "total": total},
    ).one_or_none()
    return held is not None


_STEP = text(f"""
UPDATE rescore_runs SET cursor = :cursor, planned = planned + :images, state = 'running', reason = NULL,
    total = CASE WHEN kind = 'challenger' THEN planned + :images ELSE total END,
    started_at = coalesce(started_at, clock_timestamp()),
    plan_lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE {_MINE} RETURNING planned
""").bindparams(bindparam("cursor", type_=JSONB))  # noqa: S608 - the condition is a constant of ours


def count_planned(connection: Connection, plan: Plan) -> int | None:
    """How many images were planned so far, and the run locked; None where it is not ours."""
    found = connection.execute(
        text(f"SELECT planned FROM rescore_runs WHERE {_MINE} FOR UPDATE"),  # noqa: S608
        {"id": plan.run.id, "attempt": plan.attempt},
    ).scalar()
    return None if found is None else int(found)


def is_all_planned(connection: Connection, plan: Plan) -> bool:
    """Whether as many images were planned as the source has, and the run is still ours."""
    found = connection.execute(
        text(f"SELECT planned >= total FROM rescore_runs WHERE {_MINE}"),  # noqa: S608
        {"id": plan.run.id, "attempt": plan.attempt},
    ).scalar()
    return bool(found)


def advance(
    connection: Connection, plan: Plan, *, cursor: dict[str, Any], images: int, lease_seconds: float
) -> int | None:
    """Move the cursor past that many images. Returns the number of the first, or None if the run is no longer ours."""
    planned = connection.execute(
        _STEP,
        {
            "id": plan.run.id,
            "attempt": plan.attempt,
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
    plan: Plan,
    items: Sequence[dict[str, Any]],
    *,
    cursor: dict[str, Any],
    lease_seconds: float,
) -> bool:
    """Add a slice, and the cursor behind it; False where the run is another planner's, or may not run any more."""
    first = advance(connection, plan, cursor=cursor, images=len(items), lease_seconds=lease_seconds)
    if first is None:
        return False
    if items:
        connection.execute(_ADD, {"run_id": plan.run.id, "first": first, "items": list(items)})
    return True


def finish(connection: Connection, plan: Plan) -> None:
    """Note that all of the source is planned. A run without images is completed by that."""
    connection.execute(
        text(f"""
            UPDATE rescore_runs SET planned_all_at = clock_timestamp(), plan_lease_until = NULL, state = 'running',
                started_at = coalesce(started_at, clock_timestamp()), total = planned
            WHERE {_MINE}
        """),  # noqa: S608
        {"id": plan.run.id, "attempt": plan.attempt},
    )
    runs.end_if_done(connection, plan.run.id)


def note_waiting(connection: Connection, plan: Plan, reason: str) -> None:
    """Note why nothing can be planned at the moment; the next step forgets it."""
    connection.execute(
        text(f"UPDATE rescore_runs SET reason = :reason WHERE {_MINE}"),  # noqa: S608
        {"id": plan.run.id, "attempt": plan.attempt, "reason": reason},
    )


def release(connection: Connection, plan: Plan) -> None:
    """Give the run back: there is no room for more slices now."""
    connection.execute(
        text("UPDATE rescore_runs SET plan_lease_until = NULL WHERE id = :id AND plan_attempt = :attempt"),
        {"id": plan.run.id, "attempt": plan.attempt},
    )
