"""The rules of a removal: the policies of the recipes, the active holds, and the recipes whose images are in use."""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from core.partitions import first_id_of

SETTLED_DAYS = 2
"""Images of today and of this many days before are never touched: an upload may still refer to them."""
FEED_MARGIN_DAYS = 2
"""Inspections are kept for at least this much longer than the feed keeps its entries, which refer to them."""


@dataclass(frozen=True)
class RecipeRules:
    """The rules of one recipe with a policy. None keeps.

    Attributes:
        ok, ng, review: the days that images of this verdict are kept.
        rows_before: inspections with smaller ids end, by whole months.
        ended_before: re-scoring runs that ended before this day (UTC) are removed.
    """

    recipe_id: int
    ok: int | None
    ng: int | None
    review: int | None
    rows_before: UUID | None
    ended_before: dt.date | None


@dataclass(frozen=True)
class Rules:
    """Everything that decides what is removed today.

    Attributes:
        lots, parts: under legal hold.
        busy: recipes with a re-scoring or training run that reads their stored images.
        digest: of the policies and holds.
    """

    today: dt.date
    recipes: dict[int, RecipeRules]
    lots: list[str]
    parts: list[str]
    busy: list[int]
    digest: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of `HELD`, and the policies as a JSON document."""
        policies = [
            {name: getattr(rules, name) for name in ("recipe_id", "ok", "ng", "review")}
            | {"rows_before": rules.rows_before and str(rules.rows_before)}
            for rules in self.recipes.values()
        ]
        return {
            "policies": json.dumps(policies),
            "lots": self.lots,
            "parts": self.parts,
            "busy": self.busy,
            "today": self.today,
        }

    def may_end(self, recipe_id: int, end: UUID) -> bool:
        """Whether the policy of a recipe lets all inspections with ids below `end` go."""
        rules = self.recipes.get(recipe_id)
        return (
            rules is not None
            and rules.rows_before is not None
            and end <= rules.rows_before
            and recipe_id not in self.busy
        )


HELD = "(coalesce(inspection.lot_id = ANY(:lots), false) OR coalesce(inspection.part_id = ANY(:parts), false))"
"""SQL: whether `inspection` is under legal hold."""

_POLICIES = text("SELECT id, retention FROM recipes WHERE retention IS NOT NULL ORDER BY id")
_HOLDS = text("SELECT lot_id, part_id FROM legal_holds WHERE released_at IS NULL ORDER BY id")
# A challenger reads images of the last hour only.
_BUSY = text("""
    SELECT recipe_id FROM rescore_runs WHERE state IN ('queued', 'running', 'paused') AND kind = 'archive'
    UNION
    SELECT recipe_id FROM training_runs WHERE state IN ('queued', 'running')
""")


def read(connection: Connection, *, today: dt.date, feed_days: int) -> Rules:
    """Read the rules of today (UTC)."""
    policies = {row.id: row.retention for row in connection.execute(_POLICIES)}
    holds = connection.execute(_HOLDS).all()
    lots = sorted({hold.lot_id for hold in holds if hold.lot_id is not None})
    parts = sorted({hold.part_id for hold in holds if hold.part_id is not None})
    recipes = {id_: _recipe_rules(id_, policy, today, feed_days + FEED_MARGIN_DAYS) for id_, policy in policies.items()}
    written = json.dumps([policies, lots, parts], sort_keys=True).encode()
    return Rules(
        today,
        recipes,
        lots,
        parts,
        busy=sorted(connection.execute(_BUSY).scalars()),
        digest=hashlib.sha256(written).hexdigest(),
    )


def _recipe_rules(recipe_id: int, policy: dict[str, int | None], today: dt.date, least_days: int) -> RecipeRules:
    ng, days = policy["ng_images_days"], policy["rows_days"]
    review = policy["review_images_days"]
    last = None if days is None else today - dt.timedelta(days=max(days, least_days))
    return RecipeRules(
        recipe_id,
        ok=policy["ok_images_days"],
        ng=ng,
        review=ng if review is None else review,
        rows_before=None if last is None else first_id_of_day(last.replace(day=1)),
        ended_before=last,
    )


def first_id_of_day(day: dt.date) -> UUID:
    """Return the smallest UUIDv7 of a day (UTC)."""
    return first_id_of(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC))
