"""Agreement of a run with reviews: what people said about a part, beside the verdicts of the machine."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

REVIEWED = ("ok", "ng")
BEFORE = ("ok", "ng", "review", "none")
"""Recorded verdicts; `none` if the inspection has none."""
AFTER = ("ok", "ng", "review", "failed")
"""Verdicts of the run; `failed` if the image could not be scored."""

# PostgreSQL has no statistics on the results of a new run yet. It would expect a handful of rows, and read all reviews
# again for each of them. Without nested loops it reads each table once: a million results take less than a second. An
# index on the inspection would avoid the problem too, but makes writing the results slower by half.
_DISABLE_NESTED_LOOPS = text("SET LOCAL enable_nestloop = off")
_RESET_NESTED_LOOPS = text("RESET enable_nestloop")
_CELLS = text("""
SELECT newest.verdict AS reviewed, coalesce(result.before_verdict, 'none') AS before,
    coalesce(result.verdict, 'failed') AS after, count(*) AS number
FROM (SELECT DISTINCT ON (inspection_id) inspection_id, verdict FROM reviews ORDER BY inspection_id, id DESC) AS newest
JOIN rescore_results AS result ON result.inspection_id = newest.inspection_id AND result.run_id = :run_id
GROUP BY 1, 2, 3
""")


@dataclass(frozen=True)
class Agreement:
    """Counts of the images of a run whose inspections have a review.

    A false reject is a part that was reviewed ok and that the machine calls ng. A miss is a part that was reviewed ng
    and that the machine calls ok.

    Attributes:
        cells: number of images by (reviewed, before, after): the newest review, the recorded verdict and the verdict
            of the run, with the values of `REVIEWED`, `BEFORE` and `AFTER`.
    """

    cells: dict[tuple[str, str, str], int]

    def count(
        self, reviewed: Collection[str] = REVIEWED, before: Collection[str] = BEFORE, after: Collection[str] = AFTER
    ) -> int:
        """Return the number of images with any of these verdicts."""
        return sum(
            number
            for (review, was, now), number in self.cells.items()
            if review in reviewed and was in before and now in after
        )

    @property
    def before(self) -> dict[str, dict[str, int]]:
        """The confusion matrix of the recorded verdicts: by review, then by verdict."""
        return {review: {verdict: self.count([review], before=[verdict]) for verdict in BEFORE} for review in REVIEWED}

    @property
    def after(self) -> dict[str, dict[str, int]]:
        """The confusion matrix of the run: by review, then by verdict."""
        return {review: {verdict: self.count([review], after=[verdict]) for verdict in AFTER} for review in REVIEWED}

    @property
    def new_false_rejects(self) -> int:
        """Reviewed ok, ng now and not before."""
        return self.count(["ok"], before=("ok", "review", "none"), after=["ng"])

    @property
    def false_rejects_gone(self) -> int:
        """Reviewed ok, ng before, ok or review now."""
        return self.count(["ok"], before=["ng"], after=("ok", "review"))

    @property
    def new_misses(self) -> int:
        """Reviewed ng, ok now and not before."""
        return self.count(["ng"], before=("ng", "review", "none"), after=["ok"])

    @property
    def misses_gone(self) -> int:
        """Reviewed ng, ok before, ng or review now."""
        return self.count(["ng"], before=["ok"], after=("ng", "review"))


def measure_agreement(connection: Connection, run_id: UUID) -> Agreement:
    """Compare the results of a run with the newest reviews, as both are now."""
    connection.execute(_DISABLE_NESTED_LOOPS)
    rows = connection.execute(_CELLS, {"run_id": run_id}).all()
    connection.execute(_RESET_NESTED_LOOPS)
    return Agreement({(row.reviewed, row.before, row.after): row.number for row in rows})
