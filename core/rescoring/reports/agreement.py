"""How a run agrees with people: what was said of a part in a review, beside what the machine says of it."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

SAID = ("ok", "ng")
BEFORE = ("ok", "ng", "review", "none")
"""What was recorded; `none` where the inspection has no verdict."""
AFTER = ("ok", "ng", "review", "failed")

# The results of a new run are not in the planner's statistics yet: it would take them for a handful, and read all
# reviews again for each of them. Without nested loops it reads either table once, a million results in less than a
# second; an index that finds them by inspection would make the copying of each run slower by half.
_EACH_ONCE = text("SET LOCAL enable_nestloop = off")
_AS_BEFORE = text("RESET enable_nestloop")
_CELLS = text("""
SELECT said.verdict AS said, coalesce(result.before_verdict, 'none') AS before,
    coalesce(result.verdict, 'failed') AS after, count(*) AS number
FROM (SELECT DISTINCT ON (inspection_id) inspection_id, verdict FROM reviews ORDER BY inspection_id, id DESC) AS said
JOIN rescore_results AS result ON result.inspection_id = said.inspection_id AND result.run_id = :run_id
GROUP BY 1, 2, 3
""")


@dataclass(frozen=True)
class Agreement:
    """The images of a run whose inspections people have reviewed, counted.

    A false reject is a part that was reviewed ok and that the machine calls ng; a miss is one that was reviewed ng and
    that it calls ok.

    Attributes:
        cells: how many by (said, before, after): the newest review, the verdict that was recorded, that of the run;
            values are those of `SAID`, `BEFORE` and `AFTER`.
    """

    cells: dict[tuple[str, str, str], int]

    def number(
        self, said: Collection[str] = SAID, before: Collection[str] = BEFORE, after: Collection[str] = AFTER
    ) -> int:
        """How many there are of these."""
        return sum(
            number for (one, was, now), number in self.cells.items() if one in said and was in before and now in after
        )

    @property
    def before(self) -> dict[str, dict[str, int]]:
        """The confusion table of what was recorded: by what was said, then by verdict."""
        return {said: {verdict: self.number([said], before=[verdict]) for verdict in BEFORE} for said in SAID}

    @property
    def after(self) -> dict[str, dict[str, int]]:
        """The confusion table of the run: by what was said, then by verdict."""
        return {said: {verdict: self.number([said], after=[verdict]) for verdict in AFTER} for said in SAID}

    @property
    def new_false_rejects(self) -> int:
        """Reviewed ok, ng now and not before."""
        return self.number(["ok"], before=("ok", "review", "none"), after=["ng"])

    @property
    def false_rejects_gone(self) -> int:
        """Reviewed ok, ng before, ok or review now."""
        return self.number(["ok"], before=["ng"], after=("ok", "review"))

    @property
    def new_misses(self) -> int:
        """Reviewed ng, ok now and not before."""
        return self.number(["ng"], before=("ng", "review", "none"), after=["ok"])

    @property
    def misses_gone(self) -> int:
        """Reviewed ng, ok before, ng or review now."""
        return self.number(["ng"], before=["ok"], after=("ng", "review"))


def measure_agreement(connection: Connection, run_id: UUID) -> Agreement:
    """The agreement of a run with the newest reviews, as both stand now."""
    connection.execute(_EACH_ONCE)
    rows = connection.execute(_CELLS, {"run_id": run_id}).all()
    connection.execute(_AS_BEFORE)
    return Agreement({(row.said, row.before, row.after): row.number for row in rows})
