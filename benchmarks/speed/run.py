"""One run of one contender: what it took, from the first image sent to the last verdict."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from benchmarks.speed.contender import Contender
from benchmarks.speed.cpu import Usage, cpu_between, usage
from benchmarks.speed.load import Load, send

LOAD_GENERATOR = "load generator"


@dataclass(frozen=True)
class Run:
    """Figures of a run.

    Attributes:
        images: their number.
        seconds: from the first image sent, or due, to the last verdict.
        cpu_ms: CPU milliseconds per image by process.
        memory_bytes: proportional set size by process, at the end.
    """

    images: int
    seconds: float
    cpu_ms: dict[str, float]
    memory_bytes: dict[str, int]

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @classmethod
    def of_usage(cls, images: int, seconds: float, before: Mapping[str, Usage], after: Mapping[str, Usage]) -> Self:
        """Divide the CPU time between two calls of `usage` among the images."""
        cpu = {name: cpu_seconds / images * 1000 for name, cpu_seconds in cpu_between(before, after).items()}
        return cls(images, seconds, cpu, {name: used.memory_bytes for name, used in after.items()})


def run(contender: Contender, load: Load) -> tuple[Run, list[float]]:
    """Send a load and wait for all verdicts.

    Returns:
        The run, and for each image the seconds from when it was due to its verdict.
    """
    with contender.follow() as verdict_times:
        before, own_before = usage(contender.roots), time.process_time()
        sent = send(load)
        verdicts = verdict_times(sent)
        own_seconds = time.process_time() - own_before
        after = usage(contender.roots)
    figures = Run.of_usage(load.number, max(verdicts) - min(sent.due), before, after)
    figures.cpu_ms[LOAD_GENERATOR] = (sent.cpu_seconds + own_seconds) / load.number * 1000
    return figures, [verdict - due for verdict, due in zip(verdicts, sent.due, strict=True)]
