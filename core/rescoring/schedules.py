"""Schedules: runs that are made again and again, at times in cron's syntax by the clock of a time zone.

Every dispatcher looks each round. A schedule's row is locked while its run is made, and the run is made in the
transaction that moves the schedule on: of several dispatchers one makes it. Times that were missed, while no
dispatcher ran, make one run together; and none is made while the one before has not ended.
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
from core.rescoring.maintenance_windows import zone
from core.rescoring.requests import ScheduledRequest
from core.rescoring.tables import rescore_schedules
from core.tables import recipes as recipes_table

AT_ONCE = 100
STARTED = "started"


@dataclass(frozen=True)
class Last:
    """What became of a schedule's newest time.

    Attributes:
        run_id: the newest run that it made, at this time or before; None where it has made none.
        outcome: `started`, or `not started: ` and why.
    """

    at: dt.datetime
    run_id: UUID | None
    outcome: str


@dataclass(frozen=True)
class Schedule:
    """A schedule as it stands; `next_at` is None while it is disabled."""

    id: UUID
    name: str
    recipe: str
    cron: str
    time_zone: str
    request: dict[str, Any]
    state: str
    next_at: dt.datetime | None
    last: Last | None
    actor: str
    created_at: dt.datetime
    updated_at: dt.datetime


_SELECT = select(rescore_schedules, recipes_table.c.name.label("recipe")).select_from(
    rescore_schedules.join(recipes_table, recipes_table.c.id == rescore_schedules.c.recipe_id)
)


def _schedule(row: Row[Any]) -> Schedule:
    own = {name: value for name, value in row._mapping.items() if name in Schedule.__dataclass_fields__}
    own["next_at"] = row.next_at if row.state == "enabled" else None
    last = None if row.last_at is None else Last(row.last_at, row.last_run_id, row.last_outcome)
    return Schedule(**own, last=last)


def next_time(cron: str, time_zone: str, after: dt.datetime) -> dt.datetime:
    """The first time of a schedule after a moment, in UTC.

    It goes by the wall clock, as Debian's cron does: a time of day that is skipped when clocks go forward is made up
    for at once, and one that comes twice counts once. Times of every hour, or of every few minutes, just go on.

    Raises:
        Refused: INVALID_FIELD for what is no cron expression of five fields, never comes, or names no time zone.
    """
    try:
        local = after.astimezone(zone(time_zone))
    except ValueError as error:
        raise Refused(Code.INVALID_FIELD, f"time_zone: {error}") from None
    fields = cron.split()
    if len(fields) != 5:  # the library also takes six, the first of them seconds
        raise _no_cron(cron, f"{len(fields)} fields")
    if "/" in fields[4] and ("L" in fields[4].upper() or "#" in fields[4]):  # the library takes it, and then fails
        raise _no_cron(cron, "Bad day-of-week")
    try:
        times = CronSim(cron, local)
        # What comes twice may come for the second time just now: the library names the first.
        return next(found for found in (one.astimezone(dt.UTC) for one in times) if found > after)
    except CronSimError as error:
        raise _no_cron(cron, str(error)) from None
    except StopIteration:
        raise Refused(Code.INVALID_FIELD, f"cron: {cron!r} never comes.") from None


def _no_cron(cron: str, why: str) -> Refused:
    return Refused(
        Code.INVALID_FIELD,
        f"cron: {cron!r} is none ({why}): write minute, hour, day of the month, month and day of the week, "
        "like 30 22 * * 1-5.",
    )


def list_all(connection: Connection) -> list[Schedule]:
    """All of them, by name."""
    return [_schedule(row) for row in connection.execute(_SELECT.order_by(rescore_schedules.c.name))]


def get(connection: Connection, schedule_id: UUID) -> Schedule:
    """One schedule; refuses an unknown id."""
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
    """A schedule, whose first run is made at its next time.

    Refuses a name that is taken, an unknown recipe or version, and what `next_time` refuses. The version need not be
    ready yet.
    """
    made = connection.execute(
        insert(rescore_schedules)
        .values(
            name=name,
            cron=cron,
            time_zone=time_zone,
            state=state,
            next_at=next_time(cron, time_zone, _now(connection)),
            actor=actor,
            **_asked(connection, request),
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(rescore_schedules.c.id)
    ).scalar_one_or_none()
    if made is None:
        raise Refused(Code.SCHEDULE_EXISTS, f"There is a schedule {name!r} already.")
    _record(connection, "rescore_schedule.created", name, actor, cron=cron, time_zone=time_zone, state=state)
    return get(connection, made)


def change(
    connection: Connection, schedule_id: UUID, *, request: ScheduledRequest | None = None, actor: str, **changes: str
) -> Schedule:
    """Change what is named: `cron`, `time_zone`, `state` or the request. Refuses as `create` does.

    One that is enabled or moved to other times starts again at its next time. A run that it has made goes on.
    """
    connection.execute(select(rescore_schedules.c.id).where(rescore_schedules.c.id == schedule_id).with_for_update())
    found = get(connection, schedule_id)
    values: dict[str, Any] = dict(changes)
    if changes:
        cron, time_zone = changes.get("cron", found.cron), changes.get("time_zone", found.time_zone)
        values["next_at"] = next_time(cron, time_zone, _now(connection))
    if request is not None:
        values |= _asked(connection, request)
    if values:
        connection.execute(
            update(rescore_schedules).where(rescore_schedules.c.id == schedule_id).values(**values, updated_at=now())
        )
        asked = {} if request is None else {"run": values["request"]}
        _record(connection, "rescore_schedule.changed", found.name, actor, **changes, **asked)
    return get(connection, schedule_id)


def remove(connection: Connection, schedule_id: UUID, *, actor: str) -> None:
    """Remove a schedule; refuses an unknown id. The runs that it made stay as they are."""
    found = get(connection, schedule_id)
    connection.execute(delete(rescore_schedules).where(rescore_schedules.c.id == schedule_id))
    _record(connection, "rescore_schedule.removed", found.name, actor)


def _asked(connection: Connection, request: ScheduledRequest) -> dict[str, Any]:
    """The columns that hold what a run is asked for with."""
    owner = recipes.get(connection, request.recipe)
    if request.model_version is not None:
        model_versions.get(connection, request.recipe, request.model_version)
    return {"recipe_id": owner.id, "request": request.model_dump(mode="json", exclude_unset=True)}


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
ORDER BY schedule.next_at LIMIT :at_once
FOR UPDATE OF schedule SKIP LOCKED
""")
_MOVE_ON = text("""
UPDATE rescore_schedules SET last_at = clock_timestamp(), last_outcome = :outcome, state = :state,
    last_run_id = coalesce(:run_id, last_run_id), next_at = coalesce(:next_at, next_at)
WHERE id = :id
""")


def start_due(connection: Connection) -> list[UUID]:
    """Make the runs of the schedules whose time has come, and move those on; returns the runs.

    Where no run can be made, `last_outcome` says why and the next time is another try.
    """
    started = []
    for row in connection.execute(_DUE, {"active": list(runs.ACTIVE), "at_once": AT_ONCE}).all():
        run_id, outcome = _start(connection, row)
        if run_id is not None:
            started.append(run_id)
        moved: dict[str, Any] = {"id": row.id, "run_id": run_id, "outcome": outcome, "state": "enabled"}
        try:
            moved["next_at"] = next_time(row.cron, row.time_zone, row.now)
        except Refused as refused:  # its time zone is gone, say; the others are not to suffer from that
            moved |= {"next_at": None, "state": "disabled", "outcome": f"{outcome}; disabled: {refused.detail}"}
        connection.execute(_MOVE_ON, moved)
    return started


def _start(connection: Connection, row: Row[Any]) -> tuple[UUID | None, str]:
    """The run of a schedule whose time has come, and what became of it."""
    if row.unfinished is not None:
        return None, f"not started: its run {row.unfinished} is {row.unfinished_state}"
    try:
        request = ScheduledRequest.model_validate(row.request)
        version = request.model_version or model_versions.newest_ready(connection, request.recipe).version
        made = runs.create(connection, request.of_version(version), actor=f"schedule:{row.name}", schedule_id=row.id)
    except (Refused, ValidationError) as error:
        return None, f"not started: {error}"
    return made.id, STARTED
