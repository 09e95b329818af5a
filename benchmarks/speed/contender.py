"""What every contender that images are sent to has in common."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from benchmarks.speed.load import Sent, Target
from linewatch.server.scoring_workers import KEPT_MEMORY

VerdictTimes = Callable[[Sent], list[float]]
"""Waits until every image of a load has its verdict. Returns the times (`time.time`), in the order of the images."""


@contextmanager
def when_answered() -> Iterator[VerdictTimes]:
    """For servers whose answer is the verdict."""
    yield lambda sent: sent.answered


@dataclass(frozen=True)
class Contender:
    """A running system that scores images.

    Attributes:
        target: how an image is sent.
        roots: the names of its topmost processes by their ids.
        follow: enter it before a load is sent; it finds the times of the verdicts.
        settings: what a reader of the results needs to know, such as what a warm-up chose.
    """

    target: Target
    roots: Mapping[int, str]
    follow: Callable[[], AbstractContextManager[VerdictTimes]] = when_answered
    settings: str = ""


def environment(**added: str) -> dict[str, str]:
    """Return the environment of a contender's processes: the same for all, with Linewatch's allocator settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINEWATCH_")}
    return {**inherited, **KEPT_MEMORY, **added}
