"""The completed inspections of a model version, and what reviews say about them."""

import datetime as dt
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, or_, select

from core.inspection.id_ranges import ALL_IDS, VERSION_ORDER, just_before
from core.inspection.review_decisions import decisions
from core.models.model_versions import ModelVersion
from core.tables import inspections, reviews, thresholds


def scored_query(
    version: ModelVersion, *, station_id: str | None, since: dt.datetime, until: dt.datetime | None = None
) -> Select[Any]:
    """Select the id, score, verdict and reasons of the completed inspections of a version, newest first.

    Args:
        station_id: only those of this station; None for those of all stations without a threshold of their own, that
            is, those that the general threshold applies to.
        since, until: when they were accepted; until now by default.
    """
    query = select(inspections.c.id, inspections.c.anomaly_score, inspections.c.verdict, inspections.c.reasons).where(
        *ALL_IDS.accepted(since, until).of_version(version.id),
        inspections.c.status == "completed",
        inspections.c.created_at >= since,
        _applies_to_station(version.id, station_id),
    )
    if until is not None:
        query = query.where(inspections.c.created_at < until)
    return query.order_by(*VERSION_ORDER)


def _applies_to_station(version_id: int, station_id: str | None) -> ColumnElement[bool]:
    """Whether the threshold applies to the station of an inspection."""
    if station_id is not None:
        return inspections.c.station_id == station_id
    stations_with_threshold = select(thresholds.c.station_id).where(
        thresholds.c.model_version_id == version_id, thresholds.c.station_id.is_not(None)
    )
    return or_(inspections.c.station_id.is_(None), inspections.c.station_id.not_in(stations_with_threshold))


def reviewed_since(version: ModelVersion, since: dt.datetime) -> Subquery:
    """Select `inspection_id` and reviewed `verdict` of the inspections of a recipe accepted since a moment."""
    of_recipe = reviews.c.recipe_id == version.recipe_id
    return decisions(of_recipe, reviews.c.inspection_id >= just_before(since)).subquery("reviewed")
