"""The CPU time and the memory of groups of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

_NAMES: Final = {
    "api": "api",
    "worker.dispatcher": "dispatcher",
    "worker.io": "io worker",
    "worker.scoring": "scoring worker",
    "worker.training": "training worker",
}
"""Of the modules that processes run. A process without one has the name of its parent."""


@dataclass(frozen=True)
class Usage:
    """What a group of processes has used.

    Attributes:
        cpu_seconds: user and system time, of the processes and their ended children.
        memory_bytes: proportional set size, which counts shared pages once; at this moment.
    """

    cpu_seconds: float
    memory_bytes: int


def usage(roots: Mapping[int, str]) -> dict[str, Usage]:
    """Return the usage of processes and their descendants by what they do.

    Args:
        roots: the names of the topmost processes by their ids.
    """
    groups: dict[str, Usage] = {}
    for root, root_name in roots.items():
        process, names = psutil.Process(root), {root: root_name}
        for each in (process, *process.children(recursive=True)):  # parents come first
            try:
                name = names.setdefault(each.pid, _name(each.cmdline(), names.get(each.ppid(), root_name)))
                times, memory = each.cpu_times(), each.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
            cpu_seconds = times.user + times.system + times.children_user + times.children_system
            before = groups.get(name, Usage(0.0, 0))
            groups[name] = Usage(before.cpu_seconds + cpu_seconds, before.memory_bytes + memory)
    return groups


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Return the CPU seconds that each group took between two calls of `usage`."""
    none = Usage(0.0, 0)
    return {name: used.cpu_seconds - before.get(name, none).cpu_seconds for name, used in after.items()}


def _name(command: Sequence[str], parent: str) -> str:
    return next((_NAMES[word] for word in command if word in _NAMES), parent)
