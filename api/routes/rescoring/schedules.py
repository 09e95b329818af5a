"""`/v1/rescore-schedules`: runs that are made again and again."""

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
from core.storage.archives import Archives

router = APIRouter(prefix="/v1/rescore-schedules", tags=["re-scoring"])

_ASKED = refuses(Code.RECIPE_UNKNOWN, Code.NOT_FOUND, Code.SOURCE_REFUSED)

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
    Field(description="whose clock it goes by, as its IANA name"),
]
State = Literal["enabled", "disabled"]


class LastOfSchedule(BaseModel):
    """What became of a schedule's newest time; `run_id` is the newest run that it made, then or before."""

    at: dt.datetime
    run_id: UUID | None
    outcome: Annotated[str, Field(description="`started`, or `not started: ` and why")]


class RescoreSchedule(BaseModel):
    """Runs that are made again and again: `run` is what each is asked for with. `next_at` is null while disabled."""

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
    def of(cls, one: Schedule) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if hasattr(one, name)}
        last = None if one.last is None else LastOfSchedule(**vars(one.last))
        return cls(**{**own, "last": last}, run=one.request, created_by=one.actor)


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
    """What to change of a schedule. What is left out stays; `run` is replaced as a whole."""

    model_config = ConfigDict(extra="forbid")

    cron: OrLeftOut[Cron] = None
    time_zone: OrLeftOut[TimeZone] = None
    run: OrLeftOut[ScheduledRequest] = None
    state: OrLeftOut[State] = None


@router.get("")
def list_rescore_schedules(services: Context) -> RescoreScheduleList:
    """All schedules, by name."""
    with services.transaction() as connection:
        return RescoreScheduleList(items=[RescoreSchedule.of(one) for one in schedules.list_all(connection)])


@router.post("", status_code=201, responses=_ASKED | refuses(Code.SCHEDULE_EXISTS))
async def create_rescore_schedule(
    new: NewRescoreSchedule, response: Response, services: Context, actor: Actor
) -> RescoreSchedule:
    """Let runs be made at the times of a cron expression, by the clock of a time zone.

    Times of day that are skipped when clocks go forward are made up for at once, those that come twice count once.
    Times that are missed while the system is down make one run together, and none is made while the one before has not
    ended: `last` says so. Without a `model_version` each run takes the newest one that is ready when it is made.
    """

    def create() -> RescoreSchedule:
        request = _checked(services, new.run)
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

    made = await asyncio.to_thread(create)
    response.headers["Location"] = f"/v1/rescore-schedules/{made.id}"
    return made


@router.get("/{schedule_id}")
def get_rescore_schedule(schedule_id: UUID, services: Context) -> RescoreSchedule:
    """One schedule, with when it comes next and what became of its newest time."""
    with services.transaction() as connection:
        return RescoreSchedule.of(schedules.get(connection, schedule_id))


@router.patch("/{schedule_id}", responses=_ASKED)
async def change_rescore_schedule(
    schedule_id: UUID, changes: RescoreScheduleChanges, services: Context, actor: Actor
) -> RescoreSchedule:
    """Change a schedule, or let it rest: it goes on with its next time. A run that it has made is left alone."""

    def change() -> RescoreSchedule:
        request = None if changes.run is None else _checked(services, changes.run)
        named: dict[str, str] = changes.model_dump(exclude_unset=True, exclude={"run"})
        with services.transaction() as connection:
            return RescoreSchedule.of(schedules.change(connection, schedule_id, request=request, actor=actor, **named))

    return await asyncio.to_thread(change)


@router.delete("/{schedule_id}", status_code=204)
def delete_rescore_schedule(schedule_id: UUID, services: Context, actor: Actor) -> None:
    """Delete a schedule; the runs that it made stay."""
    with services.transaction() as connection:
        schedules.remove(connection, schedule_id, actor=actor)


def _checked(services: Services, request: ScheduledRequest) -> ScheduledRequest:
    return sources.resolve_source(request, Archives.of(services.settings))
