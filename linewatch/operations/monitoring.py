"""Monitoring: the state of the system, and the drift of recipes."""

import datetime as dt

from linewatch.http.request_bodies import as_text
from linewatch.operations.session import Session, url_path
from linewatch.types.drift import Drift
from linewatch.types.system import System


class Monitoring(Session):
    """Operations that show the state of the system and of a recipe."""

    async def system(self) -> System:
        """The state of the system: its health, queues and workers.

        Example:
            system = lw.system()
            print(system.health.status, system.health.reasons)
            for worker in system.workers:
                print(worker.kind, worker.state, worker.images_per_second)
        """
        return await self._get(System, url_path("system"))

    async def drift(
        self,
        recipe: str,
        *,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        station_id: str | None = None,
    ) -> Drift:
        """The drift of a recipe: its light (`none`, `watch`, `drift`), why, and each day.

        Example:
            drift = lw.drift("ring")
            print(drift.summary.light, drift.summary.reasons)
            for day in drift.days:
                print(day.day, day.parts, day.light, day.document["score_drift"])

        Args:
            since, until: a time range, with time zone, whose days (UTC) are shown; the last 30 days by default.
            station_id: only parts of this station.
        """
        query = as_text({"since": since, "until": until, "station_id": station_id})
        return await self._get(Drift, url_path("recipes", recipe, "drift"), query)
