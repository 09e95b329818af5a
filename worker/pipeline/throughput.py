"""How many images this process scores, and how full its minibatches are, as means of the last minutes."""

import threading
import time
from collections import deque
from collections.abc import Callable

from worker.pipeline import metrics

WINDOW_SECONDS = 300.0
_SLOT_SECONDS = 10.0


class Throughput:
    """Counts minibatches in slots of ten seconds. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._clock = clock
        self._began = clock()
        self._slots: deque[list[int]] = deque()  # number of the slot, room in minibatches, images
        self._counting = threading.Lock()

    def note(self, images: int, minibatch: int) -> None:
        """Count images that were scored at once, of at most `minibatch`; none do not count."""
        if not images:
            return
        metrics.note_minibatch(images, max(minibatch, images))
        slot = int(self._clock() / _SLOT_SECONDS)
        with self._counting:
            if not self._slots or self._slots[-1][0] != slot:
                self._slots.append([slot, 0, 0])
            self._slots[-1][1] += max(minibatch, images)
            self._slots[-1][2] += images
            self._forget()

    def means(self) -> tuple[float | None, float]:
        """Return the mean fill of the minibatches, 0 to 1, or None without any, and the images per second."""
        with self._counting:
            self._forget()
            room, images = (sum(slot[index] for slot in self._slots) for index in (1, 2))
        seconds = min(max(self._clock() - self._began, _SLOT_SECONDS), WINDOW_SECONDS)
        return images / room if room else None, images / seconds

    def _forget(self) -> None:
        oldest = int((self._clock() - WINDOW_SECONDS) / _SLOT_SECONDS)
        while self._slots and self._slots[0][0] < oldest:
            self._slots.popleft()
