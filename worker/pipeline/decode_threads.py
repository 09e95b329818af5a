"""Threads that read and decode images. A thread cannot be stopped: one that is stuck is left behind and replaced."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import torch

from worker.pipeline.faults import WorkerUnfit

P = ParamSpec("P")
T = TypeVar("T")

MAX_STUCK = 3
"""With more threads left behind that are still running, the process ends: each takes a core and memory."""


class DecodeThreads:
    """A thread pool whose threads can be replaced. Thread-safe."""

    def __init__(self, number: int | None, name: str) -> None:
        """`number` is that of the threads; None for one for each core."""
        self._number = number or torch.get_num_threads()
        self._name = name
        self._changing = threading.Lock()
        self._threads = self._new_threads()
        self._left_behind: list[Future[Any]] = []

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._changing:  # or another thread shuts this pool down in between
            return self._threads.submit(function, *args, **kwargs)

    def replace(self) -> None:
        """Start new threads. The old ones end once they have done what was submitted to them."""
        with self._changing:
            self._threads.shutdown(wait=False)
            self._threads = self._new_threads()

    def leave_behind(self, futures: Iterable[Future[Any]]) -> None:
        """Cancel calls whose results are no longer needed. Those that already run are counted until they end."""
        running = [future for future in futures if not future.cancel()]
        with self._changing:
            self._left_behind = [future for future in [*self._left_behind, *running] if not future.done()]

    def require_few_stuck(self) -> None:
        """Check that at most `MAX_STUCK` calls that were left behind still run.

        Raises:
            WorkerUnfit: there are more.
        """
        with self._changing:
            self._left_behind = [future for future in self._left_behind if not future.done()]
            stuck = len(self._left_behind)
        if stuck > MAX_STUCK:
            raise WorkerUnfit(f"{stuck} threads are stuck with images that were given up")

    def shutdown(self) -> None:
        """Wait for the calls that were submitted."""
        self._threads.shutdown()

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._number, self._name, torch.set_num_threads, (1,))
