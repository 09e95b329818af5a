"""What reviews say about inspections, in SQL: the twin of `core.models.verdicts.effective_verdict`."""

from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.dialects.postgresql import distinct_on

from core.tables import reviews


def reviewed_verdicts(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Select `inspection_id` and `verdict`, that of the newest review, of all inspections that have reviews.

    Args:
        conditions: on columns of `reviews`; they must select all reviews of an inspection or none.
    """
    return (
        select(reviews.c.inspection_id, reviews.c.verdict)
        .where(*conditions)
        .ext(distinct_on(reviews.c.inspection_id))
        .order_by(reviews.c.inspection_id, reviews.c.id.desc())
    )
