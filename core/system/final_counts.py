"""Counts inspections that became final in this process, for its metrics."""

from prometheus_client import Counter
from sqlalchemy import Connection

from core.errors import Failure
from core.models import recipes
from core.queue.finishing import Finished

_INSPECTIONS = Counter(
    "linewatch_inspections",
    "Inspections that became final, by recipe, status and the machine's verdict, which is `none` without one.",
    ["recipe", "status", "verdict"],
)
_FAILURES = Counter("linewatch_inspection_failures", "Inspections that failed, by the code of their error.", ["code"])
for _code in Failure:
    _FAILURES.labels(_code)  # a rise from nothing to 1 would not be seen


class FinalCounts:
    """Counts final inspections by the names of their recipes. Thread-safe."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def learn(self, connection: Connection, finished: Finished) -> None:
        """Read the names of recipes that are new here. Call it in the transaction that made inspections final."""
        unknown = {key.recipe_id for key in finished.counts} - self._names.keys()
        if unknown:
            self._names |= recipes.names(connection, unknown)

    def add(self, finished: Finished) -> None:
        """Count the inspections. Call it after the commit."""
        for key, number in finished.counts.items():
            _INSPECTIONS.labels(self._names[key.recipe_id], key.status, key.verdict or "none").inc(number)
            if key.error_code is not None:
                _FAILURES.labels(key.error_code).inc(number)
