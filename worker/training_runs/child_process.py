"""The child process of a training, as its worker sees it: started, followed and ended."""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from core.settings import Settings
from core.training_runs.claims import MAX_NOTES, Progress
from worker.pipeline.limited_child import INHERITED

log = logging.getLogger(__name__)

_COMMAND = (sys.executable, "-m", "worker.training_runs.program")
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# For the weights of backbones that are downloaded, and for the GPU. Passwords of servers are not inherited.
_FURTHER = ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES")


class TrainingProcess:
    """A running training. Use it in a `with` block, which ends the process; the last checkpoint stays."""

    def __init__(self, request: Path, settings: Settings) -> None:
        """Start the process in a session of its own, because Linux may compare the priorities of sessions."""
        self.process = subprocess.Popen(
            [*_COMMAND, str(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(settings),
            start_new_session=True,
        )
        self.outcome: Mapping[str, Any] | None = None
        self._lock = threading.Lock()
        self._latest: dict[str, Any] = {}
        self._notes: list[str] = []
        self._curve: list[dict[str, Any]] = []
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), name="progress", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def has_ended(self, seconds: float) -> bool:
        """Wait for the end of the process, for at most `seconds`. All that it wrote has been read then."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join()
        return True

    def progress(self) -> Progress | None:
        """Return the progress so far, or None if there is none yet."""
        with self._lock:
            if not self._latest:
                return None
            stage, done, total = (self._latest[name] for name in ("stage", "done", "total"))
            return Progress(stage, done, total, tuple(self._notes), tuple(self._curve))

    def _read(self, answers: IO[bytes]) -> None:
        for line in answers:
            try:
                self._take(json.loads(line))
            except ValueError:  # the process was killed while it wrote this line
                log.warning("a training wrote half a line")

    def _take(self, answer: dict[str, Any]) -> None:
        if "stage" not in answer:
            self.outcome = answer
            return
        with self._lock:
            self._latest = answer
            if "note" in answer and len(self._notes) < MAX_NOTES:
                self._notes.append(answer["note"])
            if "epoch" in answer:
                self._curve.append(answer["epoch"])


def _environment(settings: Settings) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in (*INHERITED, *_FURTHER) if name in os.environ}
    threads = settings.training_threads or max(1, _cores() // 2)
    if settings.training_device == "cpu":
        inherited["CUDA_VISIBLE_DEVICES"] = ""
    return inherited | dict.fromkeys(_THREAD_SETTINGS, str(threads))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
