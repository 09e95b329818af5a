"""The re-scoring history of an inspection: the results that runs and challengers have for it."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from core.rescoring import runs
from core.rescoring.reports import results
from core.rescoring.reports.results import RunResult
from core.rescoring.runs import Run


@dataclass(frozen=True)
class Rescore:
    """The result that a run has for an inspection."""

    run: Run
    result: RunResult


def list_page(
    connection: Connection, inspection_id: UUID, *, before: UUID | None, limit: int
) -> tuple[list[Rescore], UUID | None]:
    """Return one page, the newest run first, and the `before` of the next page, or None at the end.

    Args:
        before: only runs that were created before this run.
    """
    page, following = results.of_inspection(connection, inspection_id, before=before, limit=limit)
    by_id = runs.by_ids(connection, [run_id for run_id, _ in page])
    return [Rescore(by_id[run_id], result) for run_id, result in page], following
