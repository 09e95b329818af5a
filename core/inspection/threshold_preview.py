"""What another threshold would have changed among inspections that are finished. Nothing is set."""

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
"""A preview looks at the newest inspections up to this number."""

_EXAMPLES = 20


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
    query = completed_query(version.recipe_id, version.id, since).where(_concerned(version.id, station_id))
    seen = connection.execute(select(func.count()).select_from(query.limit(at_most + 1).subquery())).scalar_one()
    past = query.limit(at_most).subquery()
    limits = (literal(threshold, Float(53)), literal(review_threshold, Float(53)))
    after = verdict_sql(past.c.anomaly_score, *limits, past.c.reasons)
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
