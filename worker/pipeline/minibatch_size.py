"""How many images a GPU scores at once: found by a short warm-up when a version is loaded.

On a CPU, the size hardly matters to scoring itself: each core takes one image after the other.
"""

import time
from collections.abc import Callable
from itertools import takewhile
from typing import Final

from core.vision.detectors.device import is_out_of_memory

_REPEATS: Final = 3
_CLOSE: Final = 0.95
"""A size that reaches this share of the highest rate is as good: smaller minibatches have lower latency."""
_DOUBLINGS: Final = 5


def find_minibatch_size(
    score: Callable[[int], object], smallest: int, clock: Callable[[], float] = time.perf_counter
) -> int:
    """Return the smallest of `smallest`, twice that, and so on up to 32 times, that is about as fast as the fastest.

    Args:
        score: scores this many images, and returns when it is done. A larger size for which there is not enough
            memory ends the search.
        clock: returns seconds.
    """
    rates: dict[int, float] = {}
    for size in (smallest << doubling for doubling in range(_DOUBLINGS + 1)):
        try:
            rates[size] = _rate(score, size, clock)
        except Exception as error:
            if rates and is_out_of_memory(error):
                break
            raise
    enough = _CLOSE * max(rates.values())
    too_slow = list(takewhile(lambda size: rates[size] < enough, rates))
    return list(rates)[len(too_slow)]


def _rate(score: Callable[[int], object], size: int, clock: Callable[[], float]) -> float:
    """Images per second, by the fastest of a few calls after one that allocates memory and chooses algorithms."""
    score(size)
    seconds = []
    for _ in range(_REPEATS):
        begun = clock()
        score(size)
        seconds.append(clock() - begun)
    return size / max(min(seconds), 1e-9)
