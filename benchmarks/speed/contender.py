"""What every contender that images are sent to has in common."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.speed.load import Sent, Target

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


_ALLOCATOR: Final = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "2147483647",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Keep freed memory: without them, each forward pass asks the kernel for its pages anew, which takes a third longer."""


def environment(**added: str) -> dict[str, str]:
    """Return the environment of a contender's processes, the same for all of them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LINEWATCH_")}
    return {**inherited, **_ALLOCATOR, **added}
