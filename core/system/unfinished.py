"""Whether anything is unfinished, so that a system without work need not look for what was forgotten."""

from sqlalchemy import Connection, text

from core.rescoring.runs import ACTIVE

_IS_ANYTHING = text("""
SELECT EXISTS (SELECT FROM work)
    OR EXISTS (SELECT FROM rescore_slices)
    OR EXISTS (SELECT FROM rescore_runs WHERE state = ANY(:active))
    OR EXISTS (SELECT FROM training_runs WHERE state IN ('queued', 'running'))
""")


def is_anything_unfinished(connection: Connection) -> bool:
    """Whether an inspection, a slice, a re-scoring run or a training run is neither final nor withdrawn."""
    return bool(connection.execute(_IS_ANYTHING, {"active": list(ACTIVE)}).scalar_one())
