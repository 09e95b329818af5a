"""The CPU time and the memory of groups of processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

_MODULES = {
    "worker.scoring": "scoring worker",
    "worker.io": "io worker",
    "worker.training": "training worker",
    "worker.dispatcher": "dispatcher",
    "api": "api",
    "postgres": "PostgreSQL",
    "valkey-server": "Valkey",
    "linewatch.cli": "supervisor",
    "benchmarks.speed.load": "load generator",
}


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used.

    Attributes:
        cpu_seconds: user and system time, of the processes and their ended children.
        memory_bytes: proportional set size, which counts shared pages once; at this moment.
    """

    cpu_seconds: float
    memory_bytes: int


def usage(roots: Iterable[int]) -> dict[str, Usage]:
    """Return the usage of processes and their descendants, by what they do."""
    groups: dict[str, Usage] = {}
    for root in roots:
        process = psutil.Process(root)
        for each in (process, *process.children(recursive=True)):
            try:
                times, memory, name = each.cpu_times(), each.memory_full_info().pss, _name(each)
            except psutil.NoSuchProcess:
                continue
            before = groups.get(name, Usage(0.0, 0))
            groups[name] = Usage(before.cpu_seconds + times.user + times.system, before.memory_bytes + memory)
    return groups


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Return the CPU seconds that each group took between two calls of `usage`."""
    none = Usage(0.0, 0)
    return {name: used.cpu_seconds - before.get(name, none).cpu_seconds for name, used in after.items()}


def _name(process: psutil.Process) -> str:
    words = process.cmdline() or [process.name()]
    for word in words:
        if (known := _MODULES.get(word.rsplit("/", 1)[-1].rstrip(":"))) is not None:
            return known
    return "PostgreSQL" if words[0].startswith("postgres") else process.name()
