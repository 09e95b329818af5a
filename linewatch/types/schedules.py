"""The typed responses about schedules of re-scoring."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.types.base import Result


class LastOfSchedule(Result, frozen=True):
    """The outcome of a schedule's latest time.

    Attributes:
        run_id: the latest run that it started, then or before; null if it has started none.
        outcome: `started`, or `not started: ` and why.
    """

    at: dt.datetime
    run_id: UUID | None
    outcome: str


class RescoreSchedule(Result, frozen=True):
    """Runs that start at set times.

    Attributes:
        run: the options of each run, as in the body of `POST /v1/rescore-runs`.
        state: `enabled` or `disabled`.
        next_at: null if it is disabled.
        last: null before its first time.
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
