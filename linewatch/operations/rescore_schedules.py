"""Schedules: re-scoring runs that start at set times."""

from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from linewatch.operations.rescore_runs import RunFields, run_request
from linewatch.operations.session import Session, url_path
from linewatch.types.schedules import RescoreSchedule

State = Literal["enabled", "disabled"]


class ScheduleChanges(TypedDict, total=False):
    """The fields of a schedule that can change; absent fields stay. `run` is replaced as a whole."""

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
        """Start runs at the times of a cron expression.

        Example:
            schedule = lw.create_rescore_schedule(
                "nightly", "ring", cron="30 22 * * 1-5", time_zone="Europe/Berlin", where={"max_age_hours": 24}
            )
            print(schedule.next_at)

        Args:
            name: unique among schedules.
            model_version: the version that scores; None for the newest that is ready when a run starts.
            cron: minute, hour, day of the month, month and day of the week, in `time_zone`.
            run: the options of each run, as for `rescore`; `time_zone` (UTC by default) applies to the schedule and to
                the window of its runs.
        """
        zone = run.get("time_zone") or "UTC"
        document = {"cron": cron, "time_zone": zone, "state": state, "run": run_request(recipe, model_version, **run)}
        return await self._post(RescoreSchedule, url_path("rescore-schedules"), {"name": name, **document})

    async def change_rescore_schedule(
        self, schedule_id: UUID | str, **changes: Unpack[ScheduleChanges]
    ) -> RescoreSchedule:
        """Change, disable (`state="disabled"`) or enable a schedule. A run that it started continues."""
        return await self._patch(RescoreSchedule, url_path("rescore-schedules", schedule_id), changes)

    async def delete_rescore_schedule(self, schedule_id: UUID | str) -> None:
        """Delete a schedule. Its runs stay."""
        await self._delete(url_path("rescore-schedules", schedule_id))
