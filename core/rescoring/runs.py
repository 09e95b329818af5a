"""Re-scoring runs: `queued → running → completed | failed | cancelled`, and `paused` in between.

    queued ──first slice planned──► running ──all of the source has results──► completed
      │ ▲                            │ │ │
      │ └── resume ── paused ◄─ pause┘ │ └──too many failures, no source──► failed
      └───────────── cancel ───────────┴────────────────────────────────► cancelled

Each transition is one statement, guarded by the states that it leaves. The counters are the run's progress; they are
updated in the transaction that writes the results they count.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, insert, select, text
from sqlalchemy.sql.functions import now

from core import removal_lock
from core.access import audit
from core.errors import Code, Refused
from core.feed import events
from core.feed.events import Event, EventType
from core.models import model_versions, recipes
from core.rescoring.requests import RunRequest
from core.rescoring.run_thresholds import RunThreshold, RunThresholds
from core.rescoring.tables import rescore_runs
from core.tables import model_versions as versions_table
from core.tables import recipes as recipes_table

ACTIVE = ("queued", "running", "paused")
COUNTERS = ("completed", "failed", "ok", "ng", "review", "ok_to_ng", "ng_to_ok")

MIN_RESULTS_TO_ABORT = 50
"""A run is aborted for its failures only after this many results. At its end the failures count in any case."""
PROGRESS_STEPS = 10
"""A progress event is sent for each tenth of a run."""


@dataclass(frozen=True)
class Run:
    """A run as it is now.

    Attributes:
        kind: `archive`, or `challenger` for a version that scores live images in the shadow of the active version.
        threshold, review_threshold: those that were requested for the run; None if the version's apply.
        thresholds: the thresholds of the run, fixed when it was created.
        total: number of images in the source; None until they have been counted.
        skipped: number of images that a challenger skipped because it had fallen too far behind.
        rate: images per second, a mean over about the last half minute; 0 if there are no new results.
    """

    id: UUID
    state: str
    kind: str
    recipe_id: int
    recipe: str
    model_version_id: int
    model_version: int
    model_sha256: bytes
    source: dict[str, Any]
    recompute: bool
    threshold: float | None
    review_threshold: float | None
    thresholds: RunThresholds
    window: str | None
    time_zone: str | None
    max_failure_rate: float
    schedule_id: UUID | None
    actor: str
    reason: str | None
    total: int | None
    planned: int
    counts: dict[str, int]
    skipped: int
    rate: float
    activation: dict[str, Any] | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def final(self) -> bool:
        return self.state not in ACTIVE

    @property
    def done(self) -> int:
        """Number of images that have a result."""
        return self.counts["completed"] + self.counts["failed"]

    @property
    def seconds_left(self) -> float | None:
        """Time left at the present rate; None if it cannot be estimated."""
        if self.state != "running" or self.total is None or self.rate <= 0 or self.kind == "challenger":
            return None
        return max(0, self.total - self.done) / self.rate


# The rate of a run that has had no result for this long is 0.
_STALLED = "60 seconds"
_SELECT = select(
    rescore_runs,
    text(f"CASE WHEN rated_at > clock_timestamp() - interval '{_STALLED}' THEN rate ELSE 0 END AS present_rate"),
    recipes_table.c.name.label("recipe"),
    versions_table.c.version.label("model_version"),
    versions_table.c.sha256.label("model_sha256"),
).select_from(
    rescore_runs.join(recipes_table, recipes_table.c.id == rescore_runs.c.recipe_id).join(
        versions_table, versions_table.c.id == rescore_runs.c.model_version_id
    )
)


def _run(row: Row[Any]) -> Run:
    fields = {name: value for name, value in row._mapping.items() if name in Run.__dataclass_fields__}
    fields["rate"] = row.present_rate if row.state == "running" else 0.0
    return Run(
        **fields,
        thresholds=RunThresholds.from_json(row.limits),
        counts={name: getattr(row, name) for name in COUNTERS},
    )


def unknown_run(run_id: UUID) -> Refused:
    """Return the refusal for an id that no run has."""
    return Refused(Code.NOT_FOUND, f"There is no re-scoring run {run_id}.")


def get(connection: Connection, run_id: UUID) -> Run:
    """Return a run; refuses an unknown id."""
    found = by_ids(connection, [run_id])
    if run_id not in found:
        raise unknown_run(run_id)
    return found[run_id]


def by_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Run]:
    """Return the runs with these ids. Unknown ids are left out."""
    return {run.id: run for run in matching(connection, rescore_runs.c.id.in_(list(ids)))}


def matching(connection: Connection, *conditions: ColumnElement[bool]) -> list[Run]:
    """Return the runs that meet all of these conditions on runs and recipes, in no particular order."""
    return [_run(row) for row in connection.execute(_SELECT.where(*conditions))]


def list_page(
    connection: Connection, *, recipe: str | None, state: str | None, before: UUID | None, limit: int
) -> tuple[list[Run], UUID | None]:
    """Return one page, newest first, and the `before` of the next page, or None at the end."""
    query = _SELECT.order_by(rescore_runs.c.id.desc()).limit(limit + 1)
    if recipe is not None:
        query = query.where(rescore_runs.c.recipe_id == recipes.get(connection, recipe).id)
    if state is not None:
        query = query.where(rescore_runs.c.state == state)
    if before is not None:
        query = query.where(rescore_runs.c.id < before)
    rows = connection.execute(query).all()
    page = [_run(row) for row in rows[:limit]]
    return page, page[-1].id if len(rows) > limit else None


def create(
    connection: Connection,
    request: RunRequest,
    *,
    actor: str,
    run_id: UUID | None = None,
    schedule_id: UUID | None = None,
) -> Run:
    """Create a run over an archive. Refuses an unknown recipe or version, and a version that is not ready."""
    removal_lock.share(connection)  # from now on, the images of the recipe's inspections are needed
    version = ready_version(connection, request.recipe, request.model_version)
    if request.threshold is None:
        thresholds = RunThresholds.in_force(connection, version.id)
    else:
        thresholds = RunThresholds(RunThreshold(request.threshold, request.review_threshold))
    moment = connection.execute(select(now())).scalar_one()
    options = request.model_dump(include={"threshold", "review_threshold", "recompute", "max_failure_rate"})
    window = {"window": request.window, "time_zone": request.time_zone} if request.window else {}
    created_id = connection.execute(
        insert(rescore_runs)
        .values(
            **({"id": run_id} if run_id else {}),
            **options,
            **window,
            recipe_id=version.recipe_id,
            model_version_id=version.id,
            kind="archive",
            source=request.source_json(moment),
            limits=thresholds.to_json(),
            schedule_id=schedule_id,
            actor=actor,
        )
        .returning(rescore_runs.c.id)
    ).scalar_one()
    record(connection, created_id, "rescore_run.created", actor, recipe=request.recipe, version=version.version)
    return get(connection, created_id)


def as_first_answered(run: Run) -> Run:
    """Return a run over an archive as it was when it was created."""
    return replace(
        run,
        state="queued",
        total=None,
        planned=0,
        counts=dict.fromkeys(COUNTERS, 0),
        rate=0.0,
        reason=None,
        activation=None,
        started_at=None,
        finished_at=None,
    )


def ready_version(connection: Connection, recipe: str, version: int) -> model_versions.ModelVersion:
    """Return a version that can score. Refuses an unknown version, and one that is not ready."""
    found = model_versions.get(connection, recipe, version)
    if found.state != "ready":
        raise Refused(
            Code.MODEL_NOT_READY,
            f"Version {version} of recipe {recipe!r} is {found.state}; only a ready version can score.",
        )
    return found


_TRANSITION = """
UPDATE rescore_runs SET {changes} WHERE id = :id AND state = ANY(CAST(:from_states AS text[])) RETURNING id
"""


def _change_state(connection: Connection, run_id: UUID, verb: str, from_states: Iterable[str], changes: str) -> None:
    """Make a transition; refuses it if the run is in any other state."""
    changed = connection.execute(
        text(_TRANSITION.format(changes=changes)), {"id": run_id, "from_states": list(from_states)}
    ).one_or_none()
    if changed is None:
        run = get(connection, run_id)
        raise Refused(Code.INVALID_TRANSITION, f"Run {run_id} is {run.state} and cannot be {verb}.")


def pause(connection: Connection, run_id: UUID, *, actor: str) -> Run:
    """`queued | running → paused`: workers stop at their next minibatch; existing results stay."""
    _change_state(connection, run_id, "paused", ("queued", "running"), "state = 'paused'")
    record(connection, run_id, "rescore_run.paused", actor)
    return get(connection, run_id)


def resume(connection: Connection, run_id: UUID, *, actor: str) -> Run:
    """`paused → running`, or `queued` if nothing was planned yet."""
    changes = "state = CASE WHEN started_at IS NULL THEN 'queued' ELSE 'running' END, rated_at = clock_timestamp()"
    _change_state(connection, run_id, "resumed", ("paused",), changes)
    record(connection, run_id, "rescore_run.resumed", actor)
    end_if_done(connection, run_id)
    return get(connection, run_id)


def cancel(connection: Connection, run_id: UUID, *, actor: str) -> Run:
    """`queued | running | paused → cancelled`: existing results stay, the rest is not scored."""
    _change_state(connection, run_id, "cancelled", ACTIVE, "state = 'cancelled', finished_at = clock_timestamp()")
    _delete_slices(connection, run_id)
    record(connection, run_id, "rescore_run.cancelled", actor)
    return get(connection, run_id)


def fail(connection: Connection, run_id: UUID, reason: str) -> bool:
    """`queued | running | paused → failed`. Returns False if the run was final already."""
    failed = connection.execute(
        text("""
            UPDATE rescore_runs SET state = 'failed', reason = :reason, finished_at = clock_timestamp()
            WHERE id = :id AND state IN ('queued', 'running', 'paused') RETURNING id, recipe_id
        """),
        {"id": run_id, "reason": reason},
    ).one_or_none()
    if failed is None:
        return False
    _delete_slices(connection, run_id)
    events.emit(connection, [Event(EventType.RESCORE_RUN_FAILED, str(failed.id), [failed.recipe_id])])
    return True


def end_if_done(connection: Connection, run_id: UUID) -> bool:
    """End a running run that is done or has too many failures. Returns whether it ended.

    Call it after every change of the run's counters, as the last step of the transaction.
    """
    row = connection.execute(
        text("""
            UPDATE rescore_runs SET finished_at = clock_timestamp(),
                state = CASE WHEN failed > max_failure_rate * (completed + failed) THEN 'failed' ELSE 'completed' END,
                reason = CASE WHEN failed > max_failure_rate * (completed + failed) THEN
                    format('%s of %s images failed, more than the allowed share of %s', failed, completed + failed,
                        max_failure_rate) END
            WHERE id = :id AND state = 'running' AND (
                (planned_all_at IS NOT NULL AND completed + failed >= planned)
                OR (completed + failed >= :min_results AND failed > max_failure_rate * (completed + failed))
            )
            RETURNING id, recipe_id, state
        """),
        {"id": run_id, "min_results": MIN_RESULTS_TO_ABORT},
    ).one_or_none()
    if row is None:
        return False
    _delete_slices(connection, run_id)
    type_ = EventType.RESCORE_RUN_FAILED if row.state == "failed" else EventType.RESCORE_RUN_COMPLETED
    events.emit(connection, [Event(type_, str(row.id), [row.recipe_id])])
    return True


_ADD_TO_COUNTERS = text("""
    UPDATE rescore_runs SET
        completed = completed + :completed, failed = failed + :failed,
        ok = ok + :ok, ng = ng + :ng, review = review + :review,
        ok_to_ng = ok_to_ng + :ok_to_ng, ng_to_ok = ng_to_ok + :ng_to_ok,
        rate = rate + greatest(1 - exp(-elapsed / 30.0), elapsed / age) * (:done / elapsed - rate),
        rated_at = clock_timestamp()
    FROM (
        SELECT id,
            greatest(extract(epoch FROM clock_timestamp() - coalesce(rated_at, started_at)), 0.001)::float8 AS elapsed,
            greatest(extract(epoch FROM clock_timestamp() - started_at), 0.001)::float8 AS age
        FROM rescore_runs WHERE id = :id FOR NO KEY UPDATE
    ) AS locked
    WHERE rescore_runs.id = locked.id
    RETURNING rescore_runs.id, recipe_id, kind, total, completed + failed AS done
""")


def add_to_counters(connection: Connection, run_id: UUID, counts: dict[str, int]) -> bool:
    """Add new results to the counters of a run, and end it if it is done. Returns whether it ended.

    Call it as the last step of the transaction.

    The rate is an exponentially weighted mean with a time constant of 30 s, for updates at irregular intervals. While
    the run is younger than that, it is the plain mean since its start.
    """
    done = counts["completed"] + counts["failed"]
    if not done:
        return False
    row = connection.execute(_ADD_TO_COUNTERS, {"id": run_id, "done": float(done), **counts}).one()
    if row.total and row.kind == "archive":
        step, previous = (row.done * PROGRESS_STEPS // row.total, (row.done - done) * PROGRESS_STEPS // row.total)
        if previous < step < PROGRESS_STEPS:
            events.emit(connection, [Event(EventType.RESCORE_RUN_PROGRESS, str(row.id), [row.recipe_id])])
    return end_if_done(connection, run_id)


def _delete_slices(connection: Connection, run_id: UUID) -> None:
    """Delete the slices of a run that has ended.

    Slices whose results are being written are skipped: their writer has locked the slice and waits for the run, which
    is locked here. `core.rescoring.slices.reclaim_expired_leases` deletes them later.
    """
    connection.execute(
        text("""
            DELETE FROM rescore_slices AS slice USING (
                SELECT run_id, first FROM rescore_slices WHERE run_id = :id FOR UPDATE SKIP LOCKED
            ) AS left_over WHERE slice.run_id = left_over.run_id AND slice.first = left_over.first
        """),
        {"id": run_id},
    )


def record(connection: Connection, run_id: UUID, action: str, actor: str, **detail: Any) -> None:
    """Write to the audit log what an actor did to a run."""
    audit.record(connection, actor=actor, action=action, subject=f"rescore_run:{run_id}", **detail)


def which_are_final(connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Return those of these runs that are final."""
    rows = connection.execute(
        select(rescore_runs.c.id).where(rescore_runs.c.id.in_(list(ids)), rescore_runs.c.state.not_in(ACTIVE))
    ).scalars()
    return set(rows)
