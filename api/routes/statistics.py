"""`/v1/statistics`: figures by recipe and time."""

import datetime as dt
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel

from api.requests.parameters import Label, Moment, RecipeName
from api.responses.problems import refuses
from api.responses.statistics import RecipeStatistics, Statistics
from api.services import Context
from core.errors import Code, Refused
from core.rescoring.maintenance_windows import parse_time_zone
from core.statistics import buckets, statistics

router = APIRouter(prefix="/v1/statistics", tags=["statistics"])


def _check_bucket(text: str) -> str:
    buckets.parse_bucket(text)
    return text


def _check_time_zone(name: str) -> str:
    parse_time_zone(name)
    return name


class _Query(BaseModel):
    """The query of statistics."""

    recipe: RecipeName | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    since: Annotated[Moment | None, Query(description="by default the beginning of today in `time_zone`")] = None
    until: Annotated[Moment | None, Query(description="by default now")] = None
    bucket: Annotated[
        str | None,
        AfterValidator(_check_bucket),
        Query(
            description="`minute`, `hour`, `day`, `week`, or seconds that divide a day, at least 60; else only totals",
            max_length=10,
        ),
    ] = None
    time_zone: Annotated[
        str,
        AfterValidator(_check_time_zone),
        Query(description="IANA name; days begin at its midnight", max_length=100),
    ] = "UTC"


@router.get("", responses=refuses(Code.RECIPE_UNKNOWN))
def get_statistics(query: Annotated[_Query, Query()], services: Context) -> Statistics:
    """Get figures of each recipe, or of one: counts by status and verdict, rates and times to verdict.

    The period is at most 92 days, with at most 500 buckets, and 20,000 over all recipes. Buckets begin at midnight and
    at multiples of their length from there; the first and the last one may be shorter. If they are no multiple of 15
    minutes, the period is at most 12 hours. An inspection belongs to the time at which it was accepted, as in the
    listing, so each count equals what `GET /v1/inspections` lists with the same `since`, `until` and filters.
    """
    zone, now = parse_time_zone(query.time_zone), dt.datetime.now(dt.UTC)
    since, until = query.since or _today(now, zone), query.until or now
    if since >= until:
        raise Refused(Code.INVALID_FIELD, "since: must be before until.")
    bucket = None if query.bucket is None else buckets.parse_bucket(query.bucket)
    edges = buckets.find_edges(since, until, bucket, zone)
    with services.snapshot() as connection:
        figures = statistics.read(
            connection, recipe=query.recipe, line_id=query.line_id, station_id=query.station_id, edges=edges
        )
    divided = None if bucket is None else edges
    return Statistics(since=since, until=until, items=[RecipeStatistics.of(each, divided) for each in figures])


def _today(now: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    return buckets.midnight(now.astimezone(zone).date(), zone)
