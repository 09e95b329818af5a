"""Filters of a listing that no index answers.

A page scans a limited number of inspections for them, so it costs the same however few match. It may therefore have
fewer items than its limit, even none, although more follow: only a page without a cursor is the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Uuid, and_, any_, case, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from core.inspection.id_ranges import IdRange
from core.inspection.review_decisions import IS_STANDING
from core.tables import inspections, reviews

SCANNED_AT_ONCE = 20_000
REVIEWED_AT_ONCE = 1000
_SMALLEST, _LARGEST = 1e-100, 1e100
"""The range of thresholds that a score is compared with by its ratio. Outside it, a product could overflow."""


@dataclass(frozen=True)
class ScannedFilters:
    """Filters that no index answers; None means any.

    Attributes:
        min_score, max_score: of the anomaly score, both inclusive.
        min_score_ratio, max_score_ratio: of the score divided by the threshold in force, both inclusive, 0 or more. A
            threshold that is not positive has no ratio.
        reviewer: someone who has reviewed the inspection.
    """

    min_score: float | None = None
    max_score: float | None = None
    min_score_ratio: float | None = None
    max_score_ratio: float | None = None
    reviewer: str | None = None

    @property
    def scans(self) -> bool:
        """Whether any of these filters is set."""
        return any(getattr(self, field.name) is not None for field in fields(ScannedFilters))

    def scanned_conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on finished inspections. No inspection in flight matches."""
        score = inspections.c.anomaly_score
        conditions = []
        if self.min_score is not None:
            conditions.append(score >= self.min_score)
        if self.max_score is not None:
            conditions.append(score <= self.max_score)
        if self.min_score_ratio is not None:
            conditions.append(score >= _times_threshold(self.min_score_ratio))
        if self.max_score_ratio is not None:
            conditions.append(score <= _times_threshold(self.max_score_ratio))
        if self.reviewer is not None:
            by_reviewer = and_(
                reviews.c.inspection_id == inspections.c.id, reviews.c.reviewer == self.reviewer, IS_STANDING
            )
            conditions.append(select(reviews.c.id).where(by_reviewer).exists())
        return conditions


def _times_threshold(ratio: float) -> ColumnElement[float]:
    threshold = inspections.c.threshold
    return case((threshold.between(_SMALLEST, _LARGEST), threshold * ratio))


@dataclass(frozen=True)
class Window:
    """The inspections that one page scans.

    Attributes:
        ids: their range.
        last: after which the next page continues if this one has all that match; None if it is the last page.
        conditions: on finished inspections.
    """

    ids: IdRange
    last: UUID | None = None
    conditions: Sequence[ColumnElement[bool]] = ()


def find_window(
    connection: Connection,
    filters: ScannedFilters,
    indexed: Sequence[ColumnElement[bool]],
    order: Sequence[ColumnElement[Any]],
    before: UUID | None,
) -> Window:
    """Return which inspections a page scans, newest first.

    Args:
        indexed: the conditions that an index answers.
        order: in which that index is read.
        before: only inspections with smaller ids; None for all.
    """
    if filters.reviewer is not None:
        return _window_of_reviewer(connection, filters.reviewer, before)
    query = select(inspections.c.id).where(*indexed).order_by(*order)
    newest: UUID | None = connection.execute(query.limit(1)).scalar()
    if newest is None:
        return Window(IdRange(end=before))
    last: UUID | None = connection.execute(query.offset(SCANNED_AT_ONCE - 1).limit(1)).scalar()
    # With both ends, PostgreSQL knows how few inspections these are, even of a version that is no longer in use.
    return Window(IdRange(last, UUID(int=newest.int + 1)), last)


def _window_of_reviewer(connection: Connection, reviewer: str, before: UUID | None) -> Window:
    query = select(reviews.c.inspection_id).distinct().where(reviews.c.reviewer == reviewer, IS_STANDING)
    if before is not None:
        query = query.where(reviews.c.inspection_id < before)
    newest = query.order_by(reviews.c.inspection_id.desc()).limit(REVIEWED_AT_ONCE)
    ids = list(connection.execute(newest).scalars())
    last = ids[-1] if len(ids) == REVIEWED_AT_ONCE else None
    return Window(IdRange(last, before), last, [inspections.c.id == any_(literal(ids, ARRAY(Uuid)))])
