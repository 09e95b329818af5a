"""`/v1/rescore-schedules`: recurring re-scoring runs."""

import asyncio
import datetime as dt
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.requests.parameters import Name, OrLeftOut, refuse_unstorable
from api.responses.problems import refuses
from api.services import Actor, Context, Services
from core.errors import Code
from core.rescoring import schedules, sources
from core.rescoring.requests import ScheduledRequest
from core.rescoring.schedules import Schedule
from core.storage.archive_roots import Archives

router = APIRouter(prefix="/v1/rescore-schedules", tags=["re-scoring"])

_REQUEST_REFUSALS = refuses(Code.RECIPE_UNKNOWN, Code.NOT_FOUND, Code.SOURCE_REFUSED)

Cron = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200),
    AfterValidator(refuse_unstorable),
    Field(description="minute, hour, day of the month, month and day of the week, like 30 22 * * 1-5"),
]
TimeZone = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    AfterValidator(refuse_unstorable),
    Field(description="the IANA name of the time zone of `cron`"),
]
State = Literal["enabled", "disabled"]


class LastOfSchedule(BaseModel):
    """What happened at a schedule's newest time. `run_id` is the newest run of the schedule, from then or earlier."""

    at: dt.datetime
    run_id: UUID | None
    outcome: Annotated[str, Field(description="`started`, or `not started: ` and the reason")]


class RescoreSchedule(BaseModel):
    """A schedule of re-scoring runs. `run` is the request of each run. `next_at` is null while it is disabled."""

    id: UUID
    name: str
    cron: str
    time_zone: str
    run: dict[str, Any]
    state: str
    next_at: dt.datetime | None
    last: LastOfSchedule | None
    created_by: str
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        fields = {name: getattr(schedule, name) for name in cls.model_fields if hasattr(schedule, name)}
        last = None if schedule.last is None else LastOfSchedule(**vars(schedule.last))
        return cls(**{**fields, "last": last}, run=schedule.request, created_by=schedule.actor)


class RescoreScheduleList(BaseModel):
    """All schedules."""

    items: list[RescoreSchedule]


class NewRescoreSchedule(BaseModel):
    """A schedule to create."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    cron: Cron
    time_zone: TimeZone = "UTC"
    run: ScheduledRequest
    state: State = "enabled"


class RescoreScheduleChanges(BaseModel):
    """Changes to a schedule. Omitted fields keep their values; `run` is replaced as a whole."""

    model_config = ConfigDict(extra="forbid")

    cron: OrLeftOut[Cron] = None
    time_zone: OrLeftOut[TimeZone] = None
    run: OrLeftOut[ScheduledRequest] = None
    state: OrLeftOut[State] = None


@router.get("")
def list_rescore_schedules(services: Context) -> RescoreScheduleList:
    """List all schedules, by name."""
    with services.transaction() as connection:
        return RescoreScheduleList(items=[RescoreSchedule.of(schedule) for schedule in schedules.list_all(connection)])


@router.post("", status_code=201, responses=_REQUEST_REFUSALS | refuses(Code.SCHEDULE_EXISTS))
async def create_rescore_schedule(
    new: NewRescoreSchedule, response: Response, services: Context, actor: Actor
) -> RescoreSchedule:
    """Create runs at the times of a cron expression, in the local time of a time zone.

    A time that is skipped when clocks go forward takes place immediately afterwards. A time that occurs twice counts
    once. Times that were missed while the system was down make one run. No run is created while the previous run has
    not ended; `last` shows this. Without a `model_version`, each run uses the newest version that is ready.
    """

    def create() -> RescoreSchedule:
        request = _resolve(services, new.run)
        with services.transaction() as connection:
            return RescoreSchedule.of(
                schedules.create(
                    connection,
                    new.name,
                    cron=new.cron,
                    time_zone=new.time_zone,
                    request=request,
                    state=new.state,
                    actor=actor,
                )
            )

    schedule = await asyncio.to_thread(create)
    response.headers["Location"] = f"/v1/rescore-schedules/{schedule.id}"
    return schedule


@router.get("/{schedule_id}")
def get_rescore_schedule(schedule_id: UUID, services: Context) -> RescoreSchedule:
    """Get a schedule, with its next time and the outcome of its newest time."""
    with services.transaction() as connection:
        return RescoreSchedule.of(schedules.get(connection, schedule_id))


@router.patch("/{schedule_id}", responses=_REQUEST_REFUSALS)
async def change_rescore_schedule(
    schedule_id: UUID, changes: RescoreScheduleChanges, services: Context, actor: Actor
) -> RescoreSchedule:
    """Change, disable or enable a schedule. It continues with its next time; existing runs do not change."""

    def change() -> RescoreSchedule:
        request = None if changes.run is None else _resolve(services, changes.run)
        fields: dict[str, str] = changes.model_dump(exclude_unset=True, exclude={"run"})
        with services.transaction() as connection:
            return RescoreSchedule.of(schedules.change(connection, schedule_id, request=request, actor=actor, **fields))

    return await asyncio.to_thread(change)


@router.delete("/{schedule_id}", status_code=204)
def delete_rescore_schedule(schedule_id: UUID, services: Context, actor: Actor) -> None:
    """Delete a schedule. Its runs stay."""
    with services.transaction() as connection:
        schedules.remove(connection, schedule_id, actor=actor)


def _resolve(services: Services, request: ScheduledRequest) -> ScheduledRequest:
    return sources.resolve_source(request, Archives.of(services.settings))
