"""What the reviews of inspections decide, in SQL: the twin of `core.models.verdicts.reviewed_verdict`."""

from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Select, Subquery, case, collate, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on

from core.models.verdicts import AGREEING_REVIEWERS
from core.tables import review_retractions, reviews

IS_STANDING: ColumnElement[bool] = (
    ~select(review_retractions.c.review_id).where(review_retractions.c.review_id == reviews.c.id).exists()
)
"""Whether a review was not retracted. Only such reviews count."""


def reviewer_key(reviewer: ColumnElement[Any]) -> ColumnElement[str]:
    """A reviewer's name without differences in case. It equals `str.casefold`, whatever the locale of the database."""
    return func.casefold(collate(reviewer, "pg_unicode_fast"))


def decisions(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Select `inspection_id` and `verdict` of all inspections that have reviews: `ok`, `ng`, or `review` if undecided.

    A condition on the `inspection_id` of the result is applied to the index of the reviews.

    Args:
        conditions: on columns of `reviews`; they must select all reviews of an inspection or none.
    """
    by_reviewer = (reviews.c.inspection_id, reviewer_key(reviews.c.reviewer))
    newest = (
        select(reviews.c.inspection_id, reviews.c.id, reviews.c.verdict, reviews.c.second_review)
        .where(IS_STANDING, *conditions)
        .ext(distinct_on(*by_reviewer))
        .order_by(*by_reviewer, reviews.c.id.desc())
        .subquery("newest_of_each_reviewer")
    )
    ok, ng = (func.count().filter(newest.c.verdict == verdict) for verdict in ("ok", "ng"))
    verdict = case(
        (~_newest(newest, "second_review"), _newest(newest, "verdict")),
        (ok >= func.greatest(AGREEING_REVIEWERS, ng + 1), "ok"),
        (ng >= func.greatest(AGREEING_REVIEWERS, ok + 1), "ng"),
        else_="review",
    )
    return select(newest.c.inspection_id, verdict.label("verdict")).group_by(newest.c.inspection_id)


def _newest(newest: Subquery, column: str) -> ColumnElement[Any]:
    """The value of a column in the newest review of an inspection."""
    ordered = aggregate_order_by(newest.c[column], newest.c.id.desc())
    value: ColumnElement[Any] = func.array_agg(ordered, type_=ARRAY(newest.c[column].type))[1]
    return value
