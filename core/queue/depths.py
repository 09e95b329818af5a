"""How many inspections are in flight, by class, recipe and API key; each class has its own limit."""

from collections import Counter
from typing import Literal

from sqlalchemy import Connection, text

WorkClass = Literal["live", "bulk", "waiting"]
"""Live and synchronous work, bulk work, and work of recipes without an active model version."""


Depths = Counter[tuple[WorkClass, str, str | None]]
"""The number of inspections by class, name of the recipe, and API key that submitted them."""


def work_class_of(priority: str, *, has_model: bool) -> WorkClass:
    """Return the class of an inspection."""
    if not has_model:
        return "waiting"
    return "bulk" if priority == "bulk" else "live"


def count(connection: Connection) -> Depths:
    """How many inspections are in flight."""
    rows = connection.execute(
        text("""
            SELECT recipes.name, recipes.active_version_id IS NOT NULL AS has_model, work.priority, work.api_key,
                count(*) AS number
            FROM work JOIN recipes ON recipes.id = work.recipe_id
            GROUP BY recipes.id, work.priority, work.api_key
        """)
    )
    depths: Depths = Counter()
    for row in rows:
        depths[work_class_of(row.priority, has_model=row.has_model), row.name, row.api_key] += row.number
    return depths


def total(connection: Connection) -> int:
    """How many inspections are in flight."""
    return int(connection.execute(text("SELECT count(*) FROM work")).scalar_one())
