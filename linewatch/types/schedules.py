"""What a running system answers about schedules of re-scoring, typed."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.types.results import Result


class LastOfSchedule(Result):
    """What became of a schedule's newest time.

    Attributes:
        run_id: the newest run that it made, then or before; null where it has made none.
        outcome: `started`, or `not started: ` and why.
    """

    at: dt.datetime
    run_id: UUID | None
    outcome: str


class RescoreSchedule(Result):
    """Runs that are made again and again.

    Attributes:
        run: what each of them is asked for with, as in the body of `POST /v1/rescore-runs`.
        state: `enabled` or `disabled`.
        next_at: null while it is disabled.
        last: null while no time of it has come.
    """

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
