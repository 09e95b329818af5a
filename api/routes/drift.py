"""`/v1/recipes/{name}/drift`: whether what comes in still is what the model version was made for."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query

from api.requests.parameters import Label, Moment, RecipePath
from api.responses.problems import refuses
from api.services import Context
from core.drift import report
from core.drift.documents import Drift
from core.errors import Code

router = APIRouter(prefix="/v1/recipes/{name}", tags=["drift"])

_PERIOD = dt.timedelta(days=30)


@router.get("/drift", responses=refuses(Code.RECIPE_UNKNOWN))
def get_drift(
    name: RecipePath,
    services: Context,
    since: Annotated[Moment | None, Query(description="by default 30 days before `until`")] = None,
    until: Annotated[Moment | None, Query(description="by default now; at most 366 days after `since`")] = None,
    station_id: Annotated[Label | None, Query(description="only parts of this station")] = None,
) -> Drift:
    """Get the drift of a recipe: its light (`none`, `watch`, `drift`) with reasons in words, and each day.

    For each day (UTC, by `created_at`) and model version: the scores against the reference of the version, the ng rate
    against the expected false-reject rate, brightness, contrast and sharpness against the training images, and false
    rejects among reviewed parts. `rules` says how a day is judged, and where each rule comes from. Days without parts
    are left out. Inspections are counted within seconds; `counted_until` says up to when. Re-scoring counts for nothing
    here.
    """
    end = until or dt.datetime.now(dt.UTC)
    with services.transaction() as connection:
        return report.report(connection, name, since=since or end - _PERIOD, until=end, station_id=station_id)
