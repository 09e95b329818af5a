"""Find queued inspections that a message should name.

An inspection is inserted with `published_at` set, because its message follows the commit at once. If the message cannot
be sent, the mark is removed; if the sender is killed first, the message counts as lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

LOST_AFTER_SECONDS = 5.0
"""A message is considered lost if it was published this long ago and its queue is empty. Times in the future, from a
clock that was ahead, count as long ago."""


@dataclass(frozen=True)
class Publishable:
    """A queued inspection that a message should name."""

    id: UUID
    recipe_id: int
    priority: str


_PUBLISHABLE = """
WITH picked AS (
    SELECT work.id FROM work
    JOIN recipes ON recipes.id = work.recipe_id AND recipes.active_version_id IS NOT NULL
    WHERE work.state = 'queued' AND {which}
    ORDER BY work.id LIMIT :at_most
    FOR UPDATE OF work SKIP LOCKED
)
UPDATE work SET published_at = clock_timestamp() FROM picked WHERE work.id = picked.id
RETURNING work.id, work.recipe_id, work.priority
"""
_UNPUBLISHED = text(
    _PUBLISHABLE.format(
        which="""work.published_at IS NULL
            AND work.created_at NOT BETWEEN clock_timestamp() - make_interval(secs => 1) AND clock_timestamp()"""
    )
)
_LOST = text(
    _PUBLISHABLE.format(
        which="""work.priority = :priority
            AND work.published_at NOT BETWEEN
                clock_timestamp() - make_interval(secs => :lost_after) AND clock_timestamp()
            AND (:queue_is_empty OR work.published_at < (
                SELECT max(claimed.published_at) FROM work AS claimed
                WHERE claimed.state = 'running' AND claimed.priority = :priority
            ))"""
    )
)


def take_unpublished(connection: Connection, *, at_most: int) -> list[Publishable]:
    """Queued inspections that no message names. They are marked as published; the caller must publish them."""
    rows = connection.execute(_UNPUBLISHED, {"at_most": at_most})
    return [Publishable(**row._mapping) for row in rows]


def take_with_lost_message(
    connection: Connection, *, priority: str, queue_is_empty: bool, at_most: int
) -> list[Publishable]:
    """Queued inspections whose message is considered lost. They are marked as published; the caller must publish them.

    That is: they were published some seconds ago, and their queue is empty or later messages have been claimed.
    Publishing one twice is harmless, and happens at most every `LOST_AFTER_SECONDS`.
    """
    rows = connection.execute(
        _LOST,
        {
            "priority": priority,
            "queue_is_empty": queue_is_empty,
            "lost_after": LOST_AFTER_SECONDS,
            "at_most": at_most,
        },
    )
    return [Publishable(**row._mapping) for row in rows]


def mark_unpublished(connection: Connection, ids: Sequence[UUID]) -> None:
    """Mark rows whose message could not be sent, for `take_unpublished`; rows that are locked are skipped."""
    connection.execute(
        text("""
            WITH waiting AS (
                SELECT id FROM work
                WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'
                ORDER BY id FOR UPDATE SKIP LOCKED
            )
            UPDATE work SET published_at = NULL FROM waiting WHERE work.id = waiting.id
        """),
        {"ids": list(ids)},
    )


def next_bulk_recipe(connection: Connection, after: int) -> int | None:
    """The id of a recipe with queued bulk inspections and an active version, in turn: the next id after `after`.

    None if there is no such recipe.
    """
    recipe_id: int | None = connection.execute(
        text("""
            SELECT id FROM recipes
            WHERE active_version_id IS NOT NULL AND EXISTS (
                SELECT FROM work WHERE state = 'queued' AND priority = 'bulk' AND work.recipe_id = recipes.id
            )
            ORDER BY id <= :after, id LIMIT 1
        """),
        {"after": after},
    ).scalar()
    return recipe_id
