"""Parts: what is known of one part, which may have been seen in several images and more than once."""

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

LOOKED_AT = 10_000
"""How many of a part's inspections are looked at, newest first: a part id that is none must cost no more than that."""


@dataclass(frozen=True)
class Part:
    """A part as it stands: of each recipe and view the newest inspection, by recipe and view."""

    part_id: str
    views: Sequence[Inspection]

    @property
    def status(self) -> Literal["running", "completed"]:
        return "completed" if all(one.final for one in self.views) else "running"

    @property
    def verdict(self) -> Verdict | None:
        """The machine's."""
        return verdicts.part_verdict((one.final, one.verdict) for one in self.views)

    @property
    def effective_verdict(self) -> Verdict | None:
        """With what people said of the views."""
        return verdicts.part_verdict((one.final, one.effective_verdict) for one in self.views)

    @property
    def counts(self) -> dict[str, int]:
        """The views by status, and those with a verdict of the machine by that."""
        found = Counter(one.status for one in self.views)
        found.update(one.verdict for one in self.views if one.verdict is not None)
        return {"total": len(self.views), **{name: found[name] for name in ("queued", "running", *COUNTED)}}


# The newest rows of either table are found by index, so the cost is bounded whatever a part id is used for.
_SEEN = """
    SELECT id, recipe_id, view FROM {table}
    WHERE part_id = :part_id AND (CAST(:lot_id AS text) IS NULL OR lot_id = :lot_id)
      AND (CAST(:recipe AS text) IS NULL OR recipe_id = (SELECT id FROM recipes WHERE name = :recipe))
    ORDER BY id DESC LIMIT :looked_at
"""
_NEWEST = text(f"""
SELECT DISTINCT ON (recipe_id, view) id
FROM (({_SEEN.format(table="work")}) UNION ALL ({_SEEN.format(table="inspections")})) AS seen
ORDER BY recipe_id, view, id DESC
""")  # noqa: S608 - the table names are constants of ours


def get(connection: Connection, part_id: str, *, recipe: str | None = None, lot_id: str | None = None) -> Part:
    """One part, as far as a recipe or a lot has seen it; refuses one that was never seen."""
    wanted = {"part_id": part_id, "recipe": recipe, "lot_id": lot_id, "looked_at": LOOKED_AT}
    newest = connection.execute(_NEWEST, wanted).scalars()
    views = inspections.by_ids(connection, newest).values()
    if not views:
        raise Refused(Code.NOT_FOUND, f"There is no inspection of a part {part_id!r} that fits.")
    return Part(part_id, sorted(views, key=lambda one: (one.recipe, one.view or "")))
