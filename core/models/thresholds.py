"""Thresholds of a model version, for all stations or for one. They are append-only; the newest is in force."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, insert, or_, select
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
        actor: who set it; None for one from before this was stored.
        reason: why, in the words of the person who set it; None if they gave none.
    """

    id: int
    model_version_id: int
    station_id: str | None
    threshold: float
    review_threshold: float | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime
    actor: str | None
    reason: str | None


@dataclass(frozen=True)
class HeldOutScores:
    """The scores of the good parts that a threshold was calibrated with.

    Attributes:
        scores: ascending, at least one.
    """

    calibration: dict[str, Any]
    scores: list[float]


_COLUMNS = [thresholds.c[field.name] for field in fields(Threshold)]


def in_force(connection: Connection, model_version_id: int) -> list[Threshold]:
    """Return the thresholds in force for a version: the general one first, then those of single stations."""
    rows = connection.execute(
        select(*_COLUMNS)
        .where(thresholds.c.model_version_id == model_version_id)
        .ext(distinct_on(thresholds.c.station_id))
        .order_by(thresholds.c.station_id.asc().nulls_first(), thresholds.c.id.desc())
    )
    return [Threshold(**row._mapping) for row in rows]


def in_force_at(connection: Connection, model_version_id: int, station_id: str | None) -> Threshold:
    """Return the threshold in force for a version at a station; None for stations without a threshold of their own."""
    by_station = {threshold.station_id: threshold for threshold in in_force(connection, model_version_id)}
    return by_station.get(station_id, by_station[None])


def list_page(
    connection: Connection, model_version_id: int, *, station_id: str | None, before: int | None, limit: int
) -> tuple[list[Threshold], int | None]:
    """Return one page of all thresholds of a version, newest first, and the `before` of the next page; None at the end.

    Args:
        station_id: only those of this station; None for all.
    """
    query = select(*_COLUMNS).where(thresholds.c.model_version_id == model_version_id)
    if station_id is not None:
        query = query.where(thresholds.c.station_id == station_id)
    if before is not None:
        query = query.where(thresholds.c.id < before)
    rows = connection.execute(query.order_by(thresholds.c.id.desc()).limit(limit + 1)).all()
    items = [Threshold(**row._mapping) for row in rows[:limit]]
    return items, items[-1].id if len(rows) > limit else None


def newest_held_out_scores(
    connection: Connection, model_version_id: int, station_id: str | None
) -> HeldOutScores | None:
    """Return the scores of the newest calibration of a version at a station; None if none were stored.

    A station without scores of its own has those of the calibration for all stations.
    """
    row = connection.execute(
        select(thresholds.c.calibration, thresholds.c.held_out_scores)
        .where(
            thresholds.c.model_version_id == model_version_id,
            thresholds.c.held_out_scores.is_not(None),
            or_(thresholds.c.station_id.is_(None), thresholds.c.station_id == station_id),
        )
        .order_by(thresholds.c.station_id.is_(None), thresholds.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else HeldOutScores(row.calibration, row.held_out_scores)


def append(
    connection: Connection,
    version: ModelVersion,
    *,
    threshold: float,
    review_threshold: float | None,
    station_id: str | None,
    calibration: dict[str, Any] | None,
    actor: str,
    reason: str | None = None,
    held_out_scores: Sequence[float] | None = None,
) -> Threshold:
    """Set a new threshold for a version. It applies to every inspection that is claimed from now on.

    Locks the recipe, as an activation does, so no threshold changes while an activation reads those in force.

    Args:
        held_out_scores: of the good parts of its calibration; None if it has none, or they are unknown.
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
            actor=actor,
            reason=reason,
            held_out_scores=None if held_out_scores is None else sorted(held_out_scores),
        )
        .returning(*_COLUMNS)
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
        reason=reason,
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
