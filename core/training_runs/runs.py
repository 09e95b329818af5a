"""Training runs: create, start, cancel and read them. `core.training_runs.claims` has what workers do."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Float, Row, cast, func, insert, null, select, text

from core import removal_lock
from core.access import audit
from core.errors import Code, Refused
from core.models import recipes
from core.models.training_options import MIN_PARTS
from core.tables import model_versions as versions_table
from core.tables import recipes as recipes_table
from core.training_runs.requests import TrainingRequest
from core.training_runs.tables import training_runs

GOOD: Final = "good"
"""The label of the images to train on."""
ENDED: Final = ("completed", "failed", "cancelled")
ABANDONED_DAYS: Final = 30
"""A run that nobody has started for so long is cancelled."""


@dataclass(frozen=True)
class Run:
    """A training run as it is now.

    Attributes:
        options: those that were chosen.
        inspections: which inspections it learns from; None for none.
        images: the number of images of each label.
        reason: why it failed.
        stage: of `core.vision.progress.Progress`; None before the first one.
        stage_seconds: how long the stage has taken so far.
        curve: the epochs so far: fold, number and losses.
        elapsed_seconds: since a worker first started it; None before that.
        model_version, model_state: the version that it made; None before that.
    """

    id: UUID
    recipe: str
    state: str
    options: dict[str, Any]
    inspections: dict[str, Any] | None
    compare: int
    actor: str
    images: dict[str, int]
    reason: str | None
    stage: str | None
    done: int | None
    total: int | None
    stage_seconds: float | None
    notes: list[str]
    curve: list[dict[str, Any]]
    attempt: int
    elapsed_seconds: float | None
    model_version: int | None
    model_state: str | None
    result: dict[str, Any] | None
    created_at: dt.datetime
    queued_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def final(self) -> bool:
        return self.state in ENDED

    @property
    def seconds_left(self) -> float | None:
        """The time left in the current stage at its pace so far; None if it cannot be estimated."""
        if self.state != "running" or not self.done or self.total is None or self.stage_seconds is None:
            return None
        return self.stage_seconds / self.done * max(0, self.total - self.done)


def _seconds_since(start: ColumnElement[Any]) -> ColumnElement[float]:
    end = func.coalesce(training_runs.c.finished_at, func.clock_timestamp())
    return cast(func.extract("epoch", end - start), Float(53))


_HIDDEN: Final = {
    "recipe_id",
    "gathered_at",
    "stage_started_at",
    "rescues",
    "lease_until",
    "worker",
    "model_version_id",
}
_SELECT = select(
    *(column for column in training_runs.c if column.name not in _HIDDEN),
    _seconds_since(training_runs.c.stage_started_at).label("stage_seconds"),
    _seconds_since(training_runs.c.started_at).label("elapsed_seconds"),
    recipes_table.c.name.label("recipe"),
    versions_table.c.version.label("model_version"),
    versions_table.c.state.label("model_state"),
).select_from(
    training_runs.join(recipes_table, recipes_table.c.id == training_runs.c.recipe_id).join(
        versions_table, versions_table.c.id == training_runs.c.model_version_id, isouter=True
    )
)


def _run(row: Row[*tuple[Any, ...]]) -> Run:
    return Run(**row._mapping)


def unknown_run(recipe: str, run_id: UUID) -> Refused:
    """Return the refusal for an id that no run of the recipe has."""
    return Refused(Code.NOT_FOUND, f"Recipe {recipe!r} has no training run {run_id}.")


def get(connection: Connection, recipe: str, run_id: UUID) -> Run:
    """Return a run of a recipe.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND.
    """
    recipe_id = recipes.get(connection, recipe).id
    condition = (training_runs.c.id == run_id) & (training_runs.c.recipe_id == recipe_id)
    row = connection.execute(_SELECT.where(condition)).one_or_none()
    if row is None:
        raise unknown_run(recipe, run_id)
    return _run(row)


def by_id(connection: Connection, run_id: UUID) -> Run:
    """Return a run by its id, which must exist."""
    return _run(connection.execute(_SELECT.where(training_runs.c.id == run_id)).one())


def list_page(
    connection: Connection, recipe: str, *, state: str | None, before: UUID | None, limit: int
) -> tuple[list[Run], UUID | None]:
    """Return one page of a recipe's runs, newest first, and the `before` of the next page, or None at the end.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    query = _SELECT.where(training_runs.c.recipe_id == recipes.get(connection, recipe).id)
    if state is not None:
        query = query.where(training_runs.c.state == state)
    if before is not None:
        query = query.where(training_runs.c.id < before)
    rows = connection.execute(query.order_by(training_runs.c.id.desc()).limit(limit + 1)).all()
    page = [_run(row) for row in rows[:limit]]
    return page, page[-1].id if len(rows) > limit else None


def create(
    connection: Connection, recipe: str, request: TrainingRequest, *, actor: str, run_id: UUID | None = None
) -> Run:
    """Create an open run, to which images can be added.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    source = request.inspections
    created_id: UUID = connection.execute(
        insert(training_runs)
        .values(
            **({"id": run_id} if run_id else {}),
            recipe_id=recipes.get(connection, recipe).id,
            options=request.options.model_dump(mode="json", exclude_none=True),
            inspections=null() if source is None else source.model_dump(mode="json", exclude_none=True),
            compare=request.compare,
            actor=actor,
        )
        .returning(training_runs.c.id)
    ).scalar_one()
    record(connection, created_id, "training_run.created", actor, recipe=recipe)
    return by_id(connection, created_id)


def as_first_answered(run: Run) -> Run:
    """Return a run as it was when it was created."""
    return replace(
        run,
        state="open",
        images={},
        reason=None,
        stage=None,
        done=None,
        total=None,
        stage_seconds=None,
        notes=[],
        curve=[],
        attempt=0,
        elapsed_seconds=None,
        model_version=None,
        model_state=None,
        result=None,
        queued_at=None,
        started_at=None,
        finished_at=None,
    )


_START = text("""
    UPDATE training_runs SET state = 'queued', queued_at = clock_timestamp()
    WHERE id = :id AND state = 'open'
      AND (inspections IS NOT NULL OR coalesce((images ->> 'good')::int, 0) >= :enough)
    RETURNING id
""")


def start(connection: Connection, recipe: str, run_id: UUID, *, actor: str) -> Run:
    """`open → queued`: a worker trains as soon as one is free.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND; INVALID_TRANSITION in any other state, or with too few images.
    """
    removal_lock.share(connection)  # from now on, the images of the recipe's inspections are needed
    run = get(connection, recipe, run_id)
    if connection.execute(_START, {"id": run_id, "enough": MIN_PARTS}).one_or_none() is None:
        run = get(connection, recipe, run_id)
        if run.state != "open":
            raise Refused(Code.INVALID_TRANSITION, f"Training run {run_id} is {run.state} and cannot be started.")
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Training run {run_id} has {run.images.get(GOOD, 0)} images of good parts, and at least {MIN_PARTS} are "
            "needed: add images, or create a run that learns from inspections.",
        )
    record(connection, run_id, "training_run.started", actor, images=run.images)
    return get(connection, recipe, run_id)


def cancel(connection: Connection, recipe: str, run_id: UUID, *, actor: str) -> Run:
    """`open | queued | running → cancelled`: its worker stops within about a second.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND; INVALID_TRANSITION if the run has ended.
    """
    get(connection, recipe, run_id)
    cancelled = connection.execute(
        text("""
            UPDATE training_runs SET state = 'cancelled', finished_at = clock_timestamp(), lease_until = NULL
            WHERE id = :id AND state IN ('open', 'queued', 'running') RETURNING id
        """),
        {"id": run_id},
    ).one_or_none()
    run = get(connection, recipe, run_id)
    if cancelled is None:
        raise Refused(Code.INVALID_TRANSITION, f"Training run {run_id} is {run.state} and cannot be cancelled.")
    record(connection, run_id, "training_run.cancelled", actor)
    return run


def cancel_abandoned(connection: Connection) -> int:
    """Cancel runs that nobody has started for `ABANDONED_DAYS`, so that their images can end. Returns how many."""
    cancelled = connection.execute(
        text("""
            UPDATE training_runs SET state = 'cancelled', finished_at = clock_timestamp(), reason = :reason
            WHERE state = 'open' AND created_at < now() - make_interval(days => :days) RETURNING id
        """),
        {"days": ABANDONED_DAYS, "reason": f"It was not started within {ABANDONED_DAYS} days."},
    ).scalars()
    ids = list(cancelled)
    for run_id in ids:
        record(connection, run_id, "training_run.cancelled", "retention")
    return len(ids)


def record(connection: Connection, run_id: UUID, action: str, actor: str, **detail: Any) -> None:
    """Write to the audit log what an actor did to a run."""
    audit.record(connection, actor=actor, action=action, subject=f"training_run:{run_id}", **detail)


def which_are_final(connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Return those of these runs that have ended."""
    rows = connection.execute(
        select(training_runs.c.id).where(training_runs.c.id.in_(list(ids)), training_runs.c.state.in_(ENDED))
    ).scalars()
    return set(rows)


def which_may_continue(connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
    """Return those of these runs that are queued or running, so that their checkpoints may be needed."""
    rows = connection.execute(
        select(training_runs.c.id).where(
            training_runs.c.id.in_(list(ids)), training_runs.c.state.in_(("queued", "running"))
        )
    ).scalars()
    return set(rows)
