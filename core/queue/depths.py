"""How many inspections are in flight, by lane: what is counted apart has its own limit."""

from collections import Counter
from typing import Literal

from sqlalchemy import Connection, text

Lane = Literal["live", "bulk", "waiting"]
"""Live and synchronous work, bulk work, and work of recipes without an active model version."""


def lane_of(priority: str, *, has_model: bool) -> Lane:
    """The lane of an inspection."""
    if not has_model:
        return "waiting"
    return "bulk" if priority == "bulk" else "live"


def count(connection: Connection) -> Counter[tuple[Lane, str]]:
    """How many inspections are in flight, by lane and name of the recipe."""
    rows = connection.execute(
        text("""
            SELECT recipes.name, recipes.active_version_id IS NOT NULL AS has_model, work.priority, count(*) AS number
            FROM work JOIN recipes ON recipes.id = work.recipe_id
            GROUP BY recipes.id, work.priority
        """)
    )
    depths: Counter[tuple[Lane, str]] = Counter()
    for row in rows:
        depths[lane_of(row.priority, has_model=row.has_model), row.name] += row.number
    return depths


def total(connection: Connection) -> int:
    """How many inspections are in flight."""
    return int(connection.execute(text("SELECT count(*) FROM work")).scalar_one())
