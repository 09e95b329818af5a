"""Preview of a threshold: which verdicts of finished inspections it would have changed. Nothing is changed."""

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Float, func, literal, or_, select

from core.inspection.inspections import completed_query
from core.models.model_versions import ModelVersion
from core.models.thresholds import verdict_sql
from core.models.verdicts import Verdict
from core.tables import inspections, thresholds

MAX_PREVIEWED = 100_000
"""Most inspections that a preview compares, newest first."""

_EXAMPLES = 20


@dataclass(frozen=True)
class Flip:
    """Inspections whose verdict another threshold would have changed.

    Attributes:
        before: the recorded verdict.
        after: the verdict by the other threshold.
        count: number of these inspections.
        examples: ids and scores of the newest of them.
    """

    before: Verdict
    after: Verdict
    count: int
    examples: list[tuple[UUID, float]]


@dataclass(frozen=True)
class Preview:
    """The verdicts that a threshold would have changed.

    Attributes:
        inspections: number of inspections compared.
        truncated: whether the period has older inspections that were not compared.
        flips: one for each pair of verdicts before and after.
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
    """Which verdicts of this version a threshold would have changed since a moment. Nothing is changed.

    A station threshold is compared on the inspections of that station, the general threshold on those of stations
    without a station threshold.
    """
    query = completed_query(version.recipe_id, version.id, since).where(_applies_to_station(version.id, station_id))
    count = connection.execute(select(func.count()).select_from(query.limit(at_most + 1).subquery())).scalar_one()
    compared = query.limit(at_most).subquery()
    limits = (literal(threshold, Float(53)), literal(review_threshold, Float(53)))
    after = verdict_sql(compared.c.anomaly_score, *limits, compared.c.reasons)
    before = compared.c.verdict
    verdicts = select(compared.c.id, compared.c.anomaly_score, before.label("before"), after.label("after")).subquery()
    pair = (verdicts.c.before, verdicts.c.after)
    ranked = (
        select(
            verdicts,
            func.count().over(partition_by=pair).label("number"),
            func.row_number().over(partition_by=pair, order_by=verdicts.c.id.desc()).label("rank"),
        )
        .where(verdicts.c.before != verdicts.c.after)
        .subquery()
    )
    examples = select(ranked).where(ranked.c.rank <= _EXAMPLES)
    flips: dict[tuple[Verdict, Verdict], Flip] = {}
    for row in connection.execute(examples.order_by(ranked.c.before, ranked.c.after, ranked.c.rank)):
        flip = flips.setdefault((row.before, row.after), Flip(row.before, row.after, row.number, []))
        flip.examples.append((row.id, row.anomaly_score))
    return Preview(min(count, at_most), count > at_most, list(flips.values()))


def _applies_to_station(version_id: int, station_id: str | None) -> ColumnElement[bool]:
    """Whether the threshold applies to the station of an inspection."""
    if station_id is not None:
        return inspections.c.station_id == station_id
    stations_with_threshold = select(thresholds.c.station_id).where(
        thresholds.c.model_version_id == version_id, thresholds.c.station_id.is_not(None)
    )
    return or_(inspections.c.station_id.is_(None), inspections.c.station_id.not_in(stations_with_threshold))
