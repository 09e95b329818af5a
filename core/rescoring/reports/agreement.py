"""Agreement of a run with reviews: what people said about a part, beside the verdicts of the machine."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select, text

from core.inspection.review_decisions import decisions
from core.rescoring.tables import rescore_results

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
_DECIDED = decisions().subquery("decided")
_CELLS = (
    select(
        _DECIDED.c.verdict.label("reviewed"),
        func.coalesce(rescore_results.c.before_verdict, "none").label("before"),
        func.coalesce(rescore_results.c.verdict, "failed").label("after"),
        func.count().label("number"),
    )
    .join_from(_DECIDED, rescore_results, rescore_results.c.inspection_id == _DECIDED.c.inspection_id)
    .where(rescore_results.c.run_id == bindparam("run_id"), _DECIDED.c.verdict.in_(REVIEWED))
    .group_by("reviewed", "before", "after")
)


@dataclass(frozen=True)
class Agreement:
    """Counts of the images of a run whose inspections people have decided by reviews.

    A false reject is a part that was reviewed ok and that the machine calls ng. A miss is a part that was reviewed ng
    and that the machine calls ok.

    Attributes:
        cells: number of images by (reviewed, before, after): what the reviews decided, the recorded verdict and the
            verdict of the run, with the values of `REVIEWED`, `BEFORE` and `AFTER`.
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
    """Compare the results of a run with what reviews have decided, as both are now."""
    connection.execute(_DISABLE_NESTED_LOOPS)
    rows = connection.execute(_CELLS, {"run_id": run_id}).all()
    connection.execute(_RESET_NESTED_LOOPS)
    return Agreement({(row.reviewed, row.before, row.after): row.number for row in rows})
