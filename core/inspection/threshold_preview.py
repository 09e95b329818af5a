"""Preview of a threshold: which verdicts of finished inspections it would have changed. Nothing is changed."""

import datetime as dt
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, Float, Subquery, func, literal, select

from core.inspection.scored_inspections import reviewed_since, scored_query
from core.models.model_versions import ModelVersion
from core.models.thresholds import verdict_sql
from core.models.verdicts import Verdict

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
        reviewed: number of the reviewed inspections by the verdict of the newest review (`ok` or `ng`) and the verdict
            by the other threshold.
    """

    inspections: int
    truncated: bool
    flips: list[Flip]
    reviewed: dict[tuple[Verdict, Verdict], int]

    @property
    def agreement(self) -> float | None:
        """The share of the reviewed inspections for which both verdicts are the same, 0 to 1.

        Inspections that would go to review are left out: the threshold judges neither way. None without others.
        """
        judged = {pair: number for pair, number in self.reviewed.items() if pair[1] != "review"}
        total = sum(judged.values())
        same = sum(number for (review, verdict), number in judged.items() if review == verdict)
        return same / total if total else None


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
    query = scored_query(version, station_id=station_id, since=since)
    count = connection.execute(select(func.count()).select_from(query.limit(at_most + 1).subquery())).scalar_one()
    compared = query.limit(at_most).subquery()
    limits = (literal(threshold, Float(53)), literal(review_threshold, Float(53)))
    after = verdict_sql(compared.c.anomaly_score, *limits, compared.c.reasons)
    before = compared.c.verdict
    verdicts = select(compared.c.id, compared.c.anomaly_score, before.label("before"), after.label("after")).subquery()
    reviewed = reviewed_since(version, since)
    cells = connection.execute(
        select(reviewed.c.verdict, verdicts.c.after, func.count())
        .join(verdicts, verdicts.c.id == reviewed.c.inspection_id)
        .where(reviewed.c.verdict.in_(("ok", "ng")))
        .group_by(reviewed.c.verdict, verdicts.c.after)
    )
    return Preview(
        inspections=min(count, at_most),
        truncated=count > at_most,
        flips=_read_flips(connection, verdicts),
        reviewed={(row[0], row[1]): row[2] for row in cells},
    )


def _read_flips(connection: Connection, verdicts: Subquery) -> list[Flip]:
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
    return list(flips.values())
