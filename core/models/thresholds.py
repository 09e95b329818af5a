"""Thresholds of a model version, for all stations or for one. They are append-only; the newest is in force."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from core.access import audit
from core.models import recipes
from core.models.model_versions import ModelVersion
from core.tables import thresholds


@dataclass(frozen=True)
class Threshold:
    """A threshold of a model version.

    Attributes:
        station_id: the station it applies to; None for all stations without a threshold of their own.
        calibration: the calibration that computed it; None if it was set by hand.
    """

    id: int
    model_version_id: int
    station_id: str | None
    threshold: float
    review_threshold: float | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime


def in_force(connection: Connection, model_version_id: int) -> list[Threshold]:
    """Return the thresholds in force for a version: the general one first, then those of single stations."""
    rows = connection.execute(
        select(thresholds)
        .where(thresholds.c.model_version_id == model_version_id)
        .ext(distinct_on(thresholds.c.station_id))
        .order_by(thresholds.c.station_id.asc().nulls_first(), thresholds.c.id.desc())
    )
    return [Threshold(**row._mapping) for row in rows]


def append(
    connection: Connection,
    version: ModelVersion,
    *,
    threshold: float,
    review_threshold: float | None,
    station_id: str | None,
    calibration: dict[str, Any] | None,
    actor: str,
) -> Threshold:
    """Set a new threshold for a version. It applies to every inspection that is claimed from now on.

    Locks the recipe, as an activation does, so no threshold changes while an activation reads those in force.
    """
    recipes.lock(connection, version.recipe)
    row = connection.execute(
        insert(thresholds)
        .values(
            model_version_id=version.id,
            station_id=station_id,
            threshold=threshold,
            review_threshold=review_threshold,
            calibration=calibration,
        )
        .returning(thresholds)
    ).one()
    audit.record(
        connection,
        actor=actor,
        action="threshold.set",
        subject=f"recipe:{version.recipe}",
        version=version.version,
        threshold=threshold,
        review_threshold=review_threshold,
        station_id=station_id,
    )
    return Threshold(**row._mapping)


def verdict_sql(
    anomaly_score: ColumnElement[Any],
    threshold: ColumnElement[float],
    review_threshold: ColumnElement[float],
    reasons: ColumnElement[Any],
) -> ColumnElement[str]:
    """Return `core.models.verdicts.decide_verdict` as an SQL expression. Keep the two identical.

    It is in this module because `verdicts` does not depend on a database. No score reaches a null review threshold.
    """
    return case(
        (func.cardinality(reasons) > 0, "review"),
        (anomaly_score >= threshold, "ng"),
        (anomaly_score >= review_threshold, "review"),
        else_="ok",
    )
