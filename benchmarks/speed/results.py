"""The results of `make bench`, as they are stored in `speed.json`."""

from dataclasses import dataclass

from benchmarks.speed.figures import Latency, Spread, ratios
from benchmarks.speed.run import Run

BARE_LOOP = "bare loop"
LINEWATCH = "Linewatch"


@dataclass(frozen=True)
class Cell:
    """The runs of all contenders with one kind of image and one detector.

    Attributes:
        alternations: in each, the run of each contender by its name, in the order in which they ran.
        settings: what a warm-up chose, by contender.
    """

    name: str
    alternations: list[dict[str, Run]]
    settings: dict[str, str]

    def ratios(self) -> dict[str, Spread]:
        """Return the rate of each contender divided by that of the bare loop in the same alternation."""
        return ratios([self._rates(runs) for runs in self.alternations], BARE_LOOP)

    def rates(self) -> dict[str, Spread]:
        """Return the images per second of each contender."""
        return {name: Spread.of([run.rate for run in self.runs(name)]) for name in self.alternations[0]}

    def runs(self, name: str) -> list[Run]:
        """Return the runs of a contender."""
        return [runs[name] for runs in self.alternations]

    @staticmethod
    def _rates(runs: dict[str, Run]) -> dict[str, float]:
        return {name: run.rate for name, run in runs.items()}


@dataclass(frozen=True)
class LoadedLatency:
    """The latency of a contender under one load.

    Attributes:
        load: such as `50 % of capacity`.
        offered: images per second; None for a burst.
    """

    contender: str
    load: str
    images: int
    offered: float | None
    latency: Latency


@dataclass(frozen=True)
class Results:
    """All results. The first cell is the one with several alternations.

    Attributes:
        machine: facts about it, by name.
        versions: of the software, by name.
    """

    machine: dict[str, str]
    versions: dict[str, str]
    cells: list[Cell]
    latencies: list[LoadedLatency]
    minutes: float
