"""Schedules: create runs at the times of a cron expression, in the local time of a time zone.

Every dispatcher checks the schedules in each round. It locks a schedule's row, creates the run and sets the next time
in one transaction, so several dispatchers create one run. Times that were missed while no dispatcher ran make one run.
No run is created while the previous run has not ended.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from cronsim import CronSim, CronSimError
from pydantic import ValidationError
from sqlalchemy import Connection, Row, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.functions import now

from core.access import audit
from core.errors import Code, Refused
from core.models import model_versions, recipes
from core.rescoring import runs
from core.rescoring.maintenance_windows import parse_time_zone
from core.rescoring.requests import ScheduledRequest
from core.rescoring.tables import rescore_schedules
from core.tables import recipes as recipes_table

MAX_STARTED_AT_ONCE = 100
STARTED = "started"


@dataclass(frozen=True)
class LastOccurrence:
    """What happened at a schedule's newest time.

    Attributes:
        run_id: the newest run of the schedule, created at this time or earlier; None if there is none.
        outcome: `started`, or `not started: ` and the reason.
    """

    at: dt.datetime
    run_id: UUID | None
    outcome: str


@dataclass(frozen=True)
class Schedule:
    """A schedule as it is now; `next_at` is None while it is disabled."""

    id: UUID
    name: str
    recipe: str
    cron: str
    time_zone: str
    request: dict[str, Any]
    state: str
    next_at: dt.datetime | None
    last: LastOccurrence | None
    actor: str
    created_at: dt.datetime
    updated_at: dt.datetime


_SELECT = select(rescore_schedules, recipes_table.c.name.label("recipe")).select_from(
    rescore_schedules.join(recipes_table, recipes_table.c.id == rescore_schedules.c.recipe_id)
)


def _schedule(row: Row[Any]) -> Schedule:
    fields = {name: value for name, value in row._mapping.items() if name in Schedule.__dataclass_fields__}
    fields["next_at"] = row.next_at if row.state == "enabled" else None
    last = None if row.last_at is None else LastOccurrence(row.last_at, row.last_run_id, row.last_outcome)
    return Schedule(**fields, last=last)


def next_time(cron: str, time_zone: str, after: dt.datetime) -> dt.datetime:
    """Return the first time of a cron expression after a moment, in UTC.

    It follows the local clock as Debian's cron does. If clocks go forward over a time of day, it comes right after the
    change; if a time of day comes twice, only the first counts. Expressions that run every hour or every few minutes
    are not affected by a clock change.

    Raises:
        Refused: INVALID_FIELD if `cron` is not a cron expression of five fields or never matches a date, or if the
            time zone is unknown.
    """
    try:
        local = after.astimezone(parse_time_zone(time_zone))
    except ValueError as error:
        raise Refused(Code.INVALID_FIELD, f"time_zone: {error}") from None
    fields = cron.split()
    if len(fields) != 5:  # CronSim also accepts six, with seconds first
        raise _invalid_cron(cron, f"{len(fields)} fields")
    if "/" in fields[4] and ("L" in fields[4].upper() or "#" in fields[4]):  # CronSim accepts it, and then fails
        raise _invalid_cron(cron, "Bad day-of-week")
    try:
        times = CronSim(cron, local)
        # For a time that comes twice, CronSim returns the first, which may be before `after`.
        return next(moment for moment in (time.astimezone(dt.UTC) for time in times) if moment > after)
    except CronSimError as error:
        raise _invalid_cron(cron, str(error)) from None
    except StopIteration:
        raise Refused(Code.INVALID_FIELD, f"cron: {cron!r} never matches a date.") from None


def _invalid_cron(cron: str, why: str) -> Refused:
    return Refused(
        Code.INVALID_FIELD,
        f"cron: {cron!r} is not a cron expression ({why}): write minute, hour, day of the month, month "
        "and day of the week, like 30 22 * * 1-5.",
    )


def list_all(connection: Connection) -> list[Schedule]:
    """Return all schedules, by name."""
    return [_schedule(row) for row in connection.execute(_SELECT.order_by(rescore_schedules.c.name))]


def get(connection: Connection, schedule_id: UUID) -> Schedule:
    """Return a schedule; refuses an unknown id."""
    row = connection.execute(_SELECT.where(rescore_schedules.c.id == schedule_id)).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"There is no schedule {schedule_id}.")
    return _schedule(row)


def create(
    connection: Connection,
    name: str,
    *,
    cron: str,
    time_zone: str,
    request: ScheduledRequest,
    state: str = "enabled",
    actor: str,
) -> Schedule:
    """Create a schedule. Its first run is created at its next time.

    Refuses a name that is taken, an unknown recipe or version, and what `next_time` refuses. The version need not be
    ready yet.
    """
    schedule_id = connection.execute(
        insert(rescore_schedules)
        .values(
            name=name,
            cron=cron,
            time_zone=time_zone,
            state=state,
            next_at=next_time(cron, time_zone, _now(connection)),
            actor=actor,
            **_request_columns(connection, request),
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(rescore_schedules.c.id)
    ).scalar_one_or_none()
    if schedule_id is None:
        raise Refused(Code.SCHEDULE_EXISTS, f"There is a schedule {name!r} already.")
    _record(connection, "rescore_schedule.created", name, actor, cron=cron, time_zone=time_zone, state=state)
    return get(connection, schedule_id)


def change(
    connection: Connection, schedule_id: UUID, *, request: ScheduledRequest | None = None, actor: str, **changes: str
) -> Schedule:
    """Change `cron`, `time_zone`, `state` or the request. Refuses what `create` refuses.

    If anything but the request changes, the next time is computed anew from now. Existing runs are not affected.
    """
    connection.execute(
        select(rescore_schedules.c.id).where(rescore_schedules.c.id == schedule_id).with_for_update(key_share=True)
    )
    schedule = get(connection, schedule_id)
    values: dict[str, Any] = dict(changes)
    if changes:
        cron, time_zone = changes.get("cron", schedule.cron), changes.get("time_zone", schedule.time_zone)
        values["next_at"] = next_time(cron, time_zone, _now(connection))
    if request is not None:
        values |= _request_columns(connection, request)
    if values:
        connection.execute(
            update(rescore_schedules).where(rescore_schedules.c.id == schedule_id).values(**values, updated_at=now())
        )
        changed_run = {} if request is None else {"run": values["request"]}
        _record(connection, "rescore_schedule.changed", schedule.name, actor, **changes, **changed_run)
    return get(connection, schedule_id)


def remove(connection: Connection, schedule_id: UUID, *, actor: str) -> None:
    """Remove a schedule; refuses an unknown id. Its runs are not affected."""
    schedule = get(connection, schedule_id)
    connection.execute(delete(rescore_schedules).where(rescore_schedules.c.id == schedule_id))
    _record(connection, "rescore_schedule.removed", schedule.name, actor)


def _request_columns(connection: Connection, request: ScheduledRequest) -> dict[str, Any]:
    """Return the columns that store the request. Refuses an unknown recipe or version."""
    recipe = recipes.get(connection, request.recipe)
    if request.model_version is not None:
        model_versions.get(connection, request.recipe, request.model_version)
    return {"recipe_id": recipe.id, "request": request.model_dump(mode="json", exclude_unset=True)}


def _now(connection: Connection) -> dt.datetime:
    moment: dt.datetime = connection.execute(select(now())).scalar_one()
    return moment


def _record(connection: Connection, action: str, name: str, actor: str, **detail: Any) -> None:
    audit.record(connection, actor=actor, action=action, subject=f"rescore_schedule:{name}", **detail)


_DUE = text("""
SELECT schedule.id, name, cron, schedule.time_zone, request, clock_timestamp() AS now,
    run.id AS unfinished, run.state AS unfinished_state
FROM rescore_schedules AS schedule
LEFT JOIN rescore_runs AS run ON run.id = schedule.last_run_id AND run.state = ANY(CAST(:active AS text[]))
WHERE schedule.state = 'enabled' AND schedule.next_at <= clock_timestamp()
ORDER BY schedule.next_at LIMIT :at_most
FOR NO KEY UPDATE OF schedule SKIP LOCKED
""")
_SET_NEXT = text("""
UPDATE rescore_schedules SET last_at = clock_timestamp(), last_outcome = :outcome, state = :state,
    last_run_id = coalesce(:run_id, last_run_id), next_at = coalesce(:next_at, next_at)
WHERE id = :id
""")


def start_due(connection: Connection) -> list[UUID]:
    """Create the runs of the schedules that are due, and set their next times. Returns the ids of the runs.

    If a run cannot be created, `last_outcome` says why, and the schedule tries again at its next time.
    """
    started = []
    for row in connection.execute(_DUE, {"active": list(runs.ACTIVE), "at_most": MAX_STARTED_AT_ONCE}).all():
        run_id, outcome = _start(connection, row)
        if run_id is not None:
            started.append(run_id)
        changes: dict[str, Any] = {"id": row.id, "run_id": run_id, "outcome": outcome, "state": "enabled"}
        try:
            changes["next_at"] = next_time(row.cron, row.time_zone, row.now)
        except Refused as refused:  # for example, its time zone no longer exists; the other schedules go on
            changes |= {"next_at": None, "state": "disabled", "outcome": f"{outcome}; disabled: {refused.detail}"}
        connection.execute(_SET_NEXT, changes)
    return started


def _start(connection: Connection, row: Row[Any]) -> tuple[UUID | None, str]:
    """Create the run of a schedule that is due. Returns its id, or None, and the outcome."""
    if row.unfinished is not None:
        return None, f"not started: its run {row.unfinished} is {row.unfinished_state}"
    try:
        request = ScheduledRequest.model_validate(row.request)
        version = request.model_version or model_versions.newest_ready(connection, request.recipe).version
        run = runs.create(connection, request.with_version(version), actor=f"schedule:{row.name}", schedule_id=row.id)
    except (Refused, ValidationError) as error:
        return None, f"not started: {error}"
    return run.id, STARTED
