"""The feed: each final inspection once, in an order that never changes and never skips."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, text

Kind = Literal["final", "reviewed"]


def append(connection: Connection, inspections: Sequence[tuple[UUID, int]], event: Kind) -> None:
    """Enter inspections (id, recipe id), unnumbered; they get their numbers once the transaction is committed."""
    if inspections:
        connection.execute(
            text("""
                INSERT INTO feed_unnumbered (inspection_id, recipe_id, event)
                SELECT id, recipe_id, :event FROM unnest(CAST(:ids AS uuid[]), CAST(:recipe_ids AS bigint[]))
                    AS _(id, recipe_id)
            """),
            {
                "ids": [inspection_id for inspection_id, _ in inspections],
                "recipe_ids": [recipe_id for _, recipe_id in inspections],
                "event": event,
            },
        )
