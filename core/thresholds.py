"""Thresholds: append-only, of one model version and, where wished, of one station; the newest one counts."""

import datetime as dt
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Float, case, func, insert, literal, or_, select
from sqlalchemy.dialects.postgresql import distinct_on

from core import audit, recipes
from core.inspections import completed_by
from core.model_versions import ModelVersion
from core.tables import inspections, thresholds
from core.verdicts import Verdict

MAX_PREVIEWED = 100_000
"""A preview looks at the newest inspections up to this number."""

_EXAMPLES = 20


@dataclass(frozen=True)
class Threshold:
    """A threshold with the calibration that it came from, or None for 'set by hand'."""

    id: int
    model_version_id: int
    station_id: str | None
    threshold: float
    review_threshold: float | None
    calibration: dict[str, Any] | None
    created_at: dt.datetime


def current(connection: Connection, model_version_id: int) -> list[Threshold]:
    """The thresholds in force of a version: the general one first, then those of stations."""
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
    """A new threshold of a version; it counts for every claim from now on.

    It holds the recipe, as an activation does, so that what an activation sees in force is in force.
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


@dataclass(frozen=True)
class Flip:
    """Inspections whose verdict another threshold would have changed.

    Attributes:
        before: the verdict as it is recorded.
        after: what it would have been.
        count: of these inspections.
        examples: the newest of them with their scores.
    """

    before: Verdict
    after: Verdict
    count: int
    examples: list[tuple[UUID, float]]


@dataclass(frozen=True)
class Preview:
    """What a threshold would change among past inspections.

    Attributes:
        inspections: how many were looked at.
        truncated: whether there are older ones in the period that were not.
        flips: by verdict before and after.
    """

    inspections: int
    truncated: bool
    flips: list[Flip]


def preview(
    connection: Connection,
    version: ModelVersion,
    *,
    threshold: float,
    review_threshold: float | None,
    station_id: str | None,
    since: dt.datetime,
    at_most: int = MAX_PREVIEWED,
) -> Preview:
    """What a threshold would have changed among what the version completed since a moment; nothing is set.

    A station's threshold is tried on that station's inspections, the general one on those of stations that have none
    of their own.
    """
    query = completed_by(version.recipe_id, version.id, since).where(_concerned(version.id, station_id))
    seen = connection.execute(select(func.count()).select_from(query.limit(at_most + 1).subquery())).scalar_one()
    past = query.limit(at_most).subquery()
    limits = (literal(threshold, Float(53)), literal(review_threshold, Float(53)))
    after = decided(past.c.anomaly_score, *limits, past.c.reasons)
    both = select(past.c.id, past.c.anomaly_score, past.c.verdict.label("before"), after.label("after")).subquery()
    kind = (both.c.before, both.c.after)
    numbered = (
        select(
            both,
            func.count().over(partition_by=kind).label("number"),
            func.row_number().over(partition_by=kind, order_by=both.c.id.desc()).label("place"),
        )
        .where(both.c.before != both.c.after)
        .subquery()
    )
    shown = select(numbered).where(numbered.c.place <= _EXAMPLES)
    flips: dict[tuple[Verdict, Verdict], Flip] = {}
    for row in connection.execute(shown.order_by(numbered.c.before, numbered.c.after, numbered.c.place)):
        flip = flips.setdefault((row.before, row.after), Flip(row.before, row.after, row.number, []))
        flip.examples.append((row.id, row.anomaly_score))
    return Preview(min(seen, at_most), seen > at_most, list(flips.values()))


def _concerned(version_id: int, station_id: str | None) -> ColumnElement[bool]:
    """Whether a threshold of a version is for the station of an inspection."""
    if station_id is not None:
        return inspections.c.station_id == station_id
    with_own = select(thresholds.c.station_id).where(
        thresholds.c.model_version_id == version_id, thresholds.c.station_id.is_not(None)
    )
    return or_(inspections.c.station_id.is_(None), inspections.c.station_id.not_in(with_own))


def decided(
    anomaly_score: ColumnElement[Any],
    threshold: ColumnElement[float],
    review_threshold: ColumnElement[float],
    reasons: ColumnElement[Any],
) -> ColumnElement[str]:
    """`core.verdicts.decide` in SQL, word for word; it stands here because that module knows no database.

    A review threshold that is null is none: nothing reaches it.
    """
    return case(
        (func.cardinality(reasons) > 0, "review"),
        (anomaly_score >= threshold, "ng"),
        (anomaly_score >= review_threshold, "review"),
        else_="ok",
    )
