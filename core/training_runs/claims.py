"""What workers do with training runs: claim one, renew its lease with the progress, and end it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, case, func, select, text, update

from core.settings import MAX_LEASE_SECONDS
from core.training_runs import runs
from core.training_runs.tables import training_runs

MAX_RESCUES: Final = 5
"""A run fails after so many expired leases and crashes: the training may kill its process."""
MAX_NOTES: Final = 100
_LONGEST_NOTE: Final = 1000
_WORKER: Final = "worker"


@dataclass(frozen=True)
class Claim:
    """A run that a worker has claimed, and the attempt that this is."""

    run_id: UUID
    attempt: int


@dataclass(frozen=True)
class Progress:
    """The progress of an attempt; see `core.training_runs.runs.Run`."""

    stage: str
    done: int
    total: int
    notes: Sequence[str] = ()
    curve: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Reclaimed:
    """The number of runs that are queued again after their lease expired, and those that failed instead."""

    queued: int
    failed: list[UUID]


_CLAIM = text("""
WITH next AS (
    SELECT id FROM training_runs WHERE state = 'queued' ORDER BY queued_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE training_runs AS run SET state = 'running', attempt = attempt + 1, worker = :worker,
    lease_until = clock_timestamp() + make_interval(secs => :lease),
    started_at = coalesce(started_at, clock_timestamp()),
    stage = NULL, done = NULL, total = NULL, stage_started_at = NULL, notes = '{}', curve = '[]'
FROM next WHERE run.id = next.id
RETURNING run.id, run.attempt
""")


def claim(connection: Connection, *, worker: str, lease_seconds: float) -> Claim | None:
    """`queued → running` for the run that has waited longest. Returns None if none is queued."""
    row = connection.execute(_CLAIM, {"worker": worker, "lease": lease_seconds}).one_or_none()
    return None if row is None else Claim(row.id, row.attempt)


def count_queued(connection: Connection) -> int:
    """Return the number of runs that wait for a worker."""
    query = select(func.count()).select_from(training_runs).where(training_runs.c.state == "queued")
    return connection.execute(query).scalar_one()


def _held(claim: Claim) -> Any:
    """The condition under which a claim is still valid."""
    return (
        (training_runs.c.id == claim.run_id)
        & (training_runs.c.attempt == claim.attempt)
        & (training_runs.c.state == "running")
    )


def renew(
    connection: Connection,
    claim: Claim,
    *,
    lease_seconds: float,
    progress: Progress | None = None,
    stored: Progress | None = None,
) -> bool:
    """Extend the lease, and store what is new since the progress that is `stored`.

    Returns False if the claim was lost, for example because the run was cancelled: stop the training.
    """
    lease = func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds)
    values: dict[str, Any] = {"lease_until": func.clock_timestamp() + lease}
    if progress is not None and progress != stored:
        values |= _progress_values(progress, stored)
    return connection.execute(update(training_runs).where(_held(claim)).values(values)).rowcount > 0


def _progress_values(progress: Progress, stored: Progress | None) -> dict[str, Any]:
    """The columns that change. Notes and the curve only grow, and may be long."""
    values: dict[str, Any] = {}
    if stored is None or len(progress.notes) > len(stored.notes):
        values["notes"] = [_storable(note) for note in progress.notes[:MAX_NOTES]]
    if stored is None or len(progress.curve) > len(stored.curve):
        values["curve"] = [{name: _finite(value) for name, value in epoch.items()} for epoch in progress.curve]
    is_same_stage = training_runs.c.stage == progress.stage
    started = case((is_same_stage, training_runs.c.stage_started_at), else_=func.clock_timestamp())
    position = {"stage": progress.stage, "done": progress.done, "total": progress.total}
    return {**values, **position, "stage_started_at": started}


def _storable(note: str) -> str:
    """A note of limited length, without what PostgreSQL cannot store."""
    return note[:_LONGEST_NOTE].replace("\x00", "?").encode(errors="replace").decode()


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinities: a loss that is not finite becomes null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def release(connection: Connection, claim: Claim) -> None:
    """`running → queued`: the worker stops, and another one continues."""
    connection.execute(update(training_runs).where(_held(claim)).values(state="queued", lease_until=None, worker=None))


def end_crashed(connection: Connection, claim: Claim, reason: str) -> bool:
    """`running → queued`, or `failed` if that happened `MAX_RESCUES` times: the process of the training has ended.

    Returns whether the run failed.
    """
    rescues = connection.execute(
        update(training_runs)
        .where(_held(claim))
        .values(rescues=training_runs.c.rescues + 1)
        .returning(training_runs.c.rescues)
    ).scalar_one_or_none()
    if rescues is None:
        return False
    if rescues < MAX_RESCUES:
        release(connection, claim)
        return False
    return fail(connection, claim, f"{reason} It was tried {rescues} times.")


def fail(connection: Connection, claim: Claim, reason: str) -> bool:
    """`running → failed`. Returns False if the claim was lost."""
    failed = connection.execute(
        update(training_runs)
        .where(_held(claim))
        .values(state="failed", reason=_storable(reason), lease_until=None, finished_at=func.clock_timestamp())
    )
    if failed.rowcount == 0:
        return False
    runs.record(connection, claim.run_id, "training_run.failed", _WORKER, reason=_storable(reason))
    return True


def complete(connection: Connection, claim: Claim, version_id: int, result: dict[str, Any]) -> bool:
    """`running → completed`, with the model version that was registered in this transaction.

    Returns False if the claim was lost: then roll the transaction back.
    """
    completed = connection.execute(
        update(training_runs)
        .where(_held(claim))
        .values(
            state="completed",
            model_version_id=version_id,
            result=result,
            lease_until=None,
            finished_at=func.clock_timestamp(),
        )
    )
    if completed.rowcount == 0:
        return False
    run = runs.by_id(connection, claim.run_id)
    runs.record(connection, claim.run_id, "training_run.completed", _WORKER, version=run.model_version)
    return True


_RECLAIM = text("""
WITH expired AS (
    SELECT id FROM training_runs WHERE state = 'running' AND lease_until NOT BETWEEN clock_timestamp()
        AND clock_timestamp() + make_interval(secs => :longest)
    LIMIT 100 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE training_runs AS run SET rescues = rescues + 1, lease_until = NULL, worker = NULL,
    state = CASE WHEN rescues + 1 < :most THEN 'queued' ELSE 'failed' END,
    finished_at = CASE WHEN rescues + 1 < :most THEN NULL ELSE clock_timestamp() END,
    reason = CASE WHEN rescues + 1 < :most THEN reason ELSE format(
        'Its worker ended %s times without a result, the last time in the stage %s: it was killed, or this machine has '
        'too little memory. See the log of the training worker.', rescues + 1, coalesce(stage, 'start')) END
FROM expired WHERE run.id = expired.id
RETURNING run.id, run.state, run.reason
""")


def reclaim_expired_leases(connection: Connection) -> Reclaimed:
    """`running → queued` for expired leases, or `failed` after `MAX_RESCUES` of them.

    Leases that end further ahead than any lease lasts have expired, too: the clock was ahead when they were taken.
    """
    rows = connection.execute(_RECLAIM, {"longest": MAX_LEASE_SECONDS, "most": MAX_RESCUES}).all()
    failed = [row for row in rows if row.state == "failed"]
    for row in failed:
        runs.record(connection, row.id, "training_run.failed", _WORKER, reason=row.reason)
    return Reclaimed(len(rows) - len(failed), [row.id for row in failed])
