"""Schedules: re-scoring runs that are made again and again."""

from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from linewatch.operations.rescore_runs import RunFields, run_request
from linewatch.operations.session import Session, url_path
from linewatch.types.schedules import RescoreSchedule

State = Literal["enabled", "disabled"]


class ScheduleChanges(TypedDict, total=False):
    """What may be changed of a schedule; what is not named stays. `run` is replaced as a whole."""

    cron: str
    time_zone: str
    state: State
    run: dict[str, Any]


class RescoreSchedules(Session):
    """Operations on schedules."""

    async def rescore_schedules(self) -> list[RescoreSchedule]:
        """All schedules, by name."""
        return await self._list(RescoreSchedule, url_path("rescore-schedules"))

    async def rescore_schedule(self, schedule_id: UUID | str) -> RescoreSchedule:
        """One schedule."""
        return await self._get(RescoreSchedule, url_path("rescore-schedules", schedule_id))

    async def create_rescore_schedule(
        self,
        name: str,
        recipe: str,
        model_version: int | None = None,
        *,
        cron: str,
        state: State = "enabled",
        **run: Unpack[RunFields],
    ) -> RescoreSchedule:
        """Let runs be made at the times of a cron expression.

        Example:
            made = lw.create_rescore_schedule(
                "nightly", "ring", cron="30 22 * * 1-5", time_zone="Europe/Berlin", where={"max_age_hours": 24}
            )
            print(made.next_at)

        Args:
            name: no other schedule has it.
            model_version: that scores; None for the newest one that is ready when a run is made.
            cron: minute, hour, day of the month, month and day of the week, by the clock of `time_zone`.
            run: what each run is asked for with, as for `rescore`; `time_zone` (UTC by default) is of the schedule and
                of the window of its runs.
        """
        zone = run.get("time_zone") or "UTC"
        asked = {"cron": cron, "time_zone": zone, "state": state, "run": run_request(recipe, model_version, **run)}
        return await self._post(RescoreSchedule, url_path("rescore-schedules"), {"name": name, **asked})

    async def change_rescore_schedule(
        self, schedule_id: UUID | str, **changes: Unpack[ScheduleChanges]
    ) -> RescoreSchedule:
        """Change a schedule, let it rest (`state="disabled"`) or go on. A run that it has made is left alone."""
        return await self._patch(RescoreSchedule, url_path("rescore-schedules", schedule_id), changes)

    async def delete_rescore_schedule(self, schedule_id: UUID | str) -> None:
        """Delete a schedule; the runs that it made stay."""
        await self._delete(url_path("rescore-schedules", schedule_id))
