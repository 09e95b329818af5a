"""Parts: the newest inspections of one part, which may have several images and may have been inspected repeatedly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from core.errors import Code, Refused
from core.inspection import inspections
from core.inspection.inspections import Inspection
from core.models import verdicts
from core.models.verdicts import Verdict
from core.queue.batches import COUNTED

MAX_INSPECTIONS = 10_000
"""Most inspections read for a part, newest first. It limits the cost if many parts share an id."""


@dataclass(frozen=True)
class Part:
    """A part: the newest inspection of each recipe and view, sorted by recipe and view."""

    part_id: str
    views: Sequence[Inspection]

    @property
    def status(self) -> Literal["running", "completed"]:
        return "completed" if all(view.final for view in self.views) else "running"

    @property
    def verdict(self) -> Verdict | None:
        """The machine's verdict on the part."""
        return verdicts.part_verdict((view.final, view.verdict) for view in self.views)

    @property
    def effective_verdict(self) -> Verdict | None:
        """The verdict on the part with reviews applied."""
        return verdicts.part_verdict((view.final, view.effective_verdict) for view in self.views)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of views: in total, by status, and by the machine's verdict."""
        numbers = Counter(view.status for view in self.views)
        numbers.update(view.verdict for view in self.views if view.verdict is not None)
        return {"total": len(self.views), **{name: numbers[name] for name in ("queued", "running", *COUNTED)}}


# The newest rows of either table are read by index, so the cost is bounded for any id.
_NEWEST_ROWS = """
    SELECT id, recipe_id, view FROM {table}
    WHERE part_id = :part_id AND (CAST(:lot_id AS text) IS NULL OR lot_id = :lot_id)
      AND (CAST(:recipe AS text) IS NULL OR recipe_id = (SELECT id FROM recipes WHERE name = :recipe))
    ORDER BY id DESC LIMIT :limit
"""
_NEWEST = text(f"""
SELECT DISTINCT ON (recipe_id, view) id
FROM (({_NEWEST_ROWS.format(table="work")}) UNION ALL ({_NEWEST_ROWS.format(table="inspections")})) AS newest
ORDER BY recipe_id, view, id DESC
""")  # noqa: S608 - the table names are constants


def get(connection: Connection, part_id: str, *, recipe: str | None = None, lot_id: str | None = None) -> Part:
    """One part, optionally limited to a recipe or a lot. Raises Refused if it has no inspections there."""
    parameters = {"part_id": part_id, "recipe": recipe, "lot_id": lot_id, "limit": MAX_INSPECTIONS}
    newest = connection.execute(_NEWEST, parameters).scalars()
    views = inspections.by_ids(connection, newest).values()
    if not views:
        raise Refused(Code.NOT_FOUND, f"No inspection of part {part_id!r} matches.")
    return Part(part_id, sorted(views, key=lambda view: (view.recipe, view.view or "")))
