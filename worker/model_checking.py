"""Check uploaded model versions, one at a time, outside the scoring slots and in a child process with limits.

A bundle may take long to load, fill the memory or crash the libraries that load it. So a child loads it on the CPU and
reproduces its golden scores there: with one thread, a lower priority than scoring, and limits of its CPU time, elapsed
time and memory. If this worker uses a GPU, the version is then checked there too, in this process.

Run as a program, this module is the child: it reads the tar of the bundle from standard input and the request from its
argument, and answers with one JSON line.
"""

import contextlib
import faulthandler
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Engine

from core.database import UNUSABLE
from core.intake.image_decoding import Undecodable
from core.models import model_versions
from core.models.model_versions import CHECK_SECONDS
from core.settings import Settings
from core.storage.image_store import Store, bundle_key
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, digest
from core.vision.bundle.tar import unpack
from core.vision.errors import InvalidBundle
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.leases import keep_renewed
from worker.pipeline.limited_child import INHERITED
from worker.pipeline.loaded_models import Models

log = logging.getLogger(__name__)

CPU_SECONDS = 120.0
WALL_SECONDS = 300.0
"""The limit of elapsed time, for a child that waits without computing or gets little of a busy CPU."""
MEMORY_BASE_BYTES = 4 * 1024**3
MEMORY_PER_BUNDLE_BYTE = 4
MEMORY_BYTES_PER_PIXEL = 32
"""As for decoding in isolation; the golden images are decoded one after another."""
NICENESS = 5
"""Scoring gets three times the CPU time of a check if both compete for a core."""
POLL_SECONDS = 0.5

_COMMAND = [sys.executable, "-m", "worker.model_checking"]


class CheckFailed(Exception):  # noqa: N818 - it reads as what happened
    """The check crashed or did not end in time. The bundle may be at fault, or this machine."""


class CheckStopped(Exception):  # noqa: N818 - it reads as what happened
    """The worker is stopping."""


class ModelChecker:
    """Checks versions in a separate thread, so that a slow check occupies no scoring slot. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: Store,
        models: Models,
        *,
        stopping: threading.Event,
        guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """Create the thread. `guard` is entered around each check that was requested; it handles `WorkerUnfit`."""
        self._max_bytes = settings.max_bundle_bytes
        self._max_pixels = settings.max_image_pixels
        self._engine = engine
        self._store = store
        self._models = models
        self._stopping = stopping
        self._guard = guard
        self._lock = threading.Lock()
        self._requested: set[int] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model-check")

    def close(self) -> None:
        """Stop the check in progress, which another worker repeats, and drop the requests that wait."""
        self._stopping.set()
        self._thread.shutdown(cancel_futures=True)

    def request(self, version_id: int) -> None:
        """Check a version soon. Does not block, and does nothing if this was requested already."""
        with self._lock:
            if version_id in self._requested or self._stopping.is_set():
                return
            self._requested.add(version_id)
        self._thread.submit(self._run, version_id)

    def _run(self, version_id: int) -> None:
        try:
            with self._guard():
                self.check(version_id)
        except (*UNUSABLE, OSError) as error:
            log.warning("model version %d cannot be checked now: %s", version_id, error)
        except Exception:  # the store or this machine is at fault; the dispatcher requests the check again
            log.exception("model version %d could not be checked", version_id)
        finally:
            with self._lock:
                self._requested.discard(version_id)

    def check(self, version_id: int) -> None:
        """Check a version, unless another worker does: it is ready if it loads and reproduces its golden scores.

        A version whose check fails is rejected: at once if the bundle is at fault, after several checks if they crash
        or do not end in time.

        Raises:
            OSError: the store cannot be read; this check does not count.
            WorkerUnfit: the device is at fault. The check counts, because the bundle may have broken it.
        """
        with self._engine.begin() as connection:
            if not model_versions.begin_check(connection, version_id):
                return
            if model_versions.is_verified(connection, version_id):  # the same files, for another recipe
                model_versions.mark_ready(connection, version_id)
                return
        try:
            with keep_renewed(lambda: self._renew(version_id), lease_seconds=CHECK_SECONDS):
                self._check_in_child(version_id)
                if self._models.device != "cpu":
                    self._models.check(version_id)
        except (InvalidBundle, Undecodable) as error:  # Undecodable: a golden image
            with self._engine.begin() as connection:
                model_versions.reject(connection, version_id, str(error))
            log.warning("model version %d is rejected: %s", version_id, error)
            return
        except (CheckFailed, WorkerUnfit) as error:
            with self._engine.begin() as connection:
                rejected = model_versions.fail_check(connection, version_id, str(error))
            log.warning("a check of model version %d failed: %s", version_id, error)
            if rejected:
                log.warning("model version %d is rejected: its checks keep failing", version_id)
            if isinstance(error, WorkerUnfit):
                raise
            return
        except BaseException as error:
            with self._engine.begin() as connection:
                model_versions.undo_check(connection, version_id)
            if isinstance(error, CheckStopped):
                return
            raise
        with self._engine.begin() as connection:
            model_versions.mark_ready(connection, version_id)

    def _renew(self, version_id: int) -> bool:
        with self._engine.begin() as connection:
            return model_versions.renew_check(connection, version_id)

    def _check_in_child(self, version_id: int) -> None:
        """Load a bundle on the CPU and reproduce its golden scores, in a child process.

        Raises:
            InvalidBundle, CheckFailed, CheckStopped.
            OSError: the store cannot be read.
        """
        with self._engine.begin() as connection:
            sha256 = model_versions.by_id(connection, version_id).sha256
        request = {
            "sha256": sha256.hex(),
            "max_bytes": self._max_bytes,
            "max_pixels": self._max_pixels,
            "cpu_seconds": CPU_SECONDS,
            "wall_seconds": WALL_SECONDS,
        }
        # The child is to use one core, and to leave the memory of a GPU alone.
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = inherited | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        with (
            self._store.local_file(bundle_key(sha256)) as path,
            path.open("rb") as tar,
            subprocess.Popen(
                [*_COMMAND, json.dumps(request)], stdin=tar, stdout=subprocess.PIPE, env=environment
            ) as child,
        ):
            try:
                answer = self._answer(child)
            finally:
                child.kill()
        if "unreadable" in answer:
            raise OSError(answer["unreadable"])
        if "rejection" in answer:
            raise InvalidBundle(answer["rejection"])
        if "failure" in answer:
            raise CheckFailed(answer["failure"])

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        deadline = time.monotonic() + WALL_SECONDS
        while True:
            try:
                output, _ = child.communicate(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if self._stopping.is_set():
                    raise CheckStopped from None
                if time.monotonic() > deadline:
                    raise CheckFailed(f"it did not end within {WALL_SECONDS:g} s") from None
            else:
                break
        if child.returncode == -signal.SIGXCPU:
            raise InvalidBundle(f"checking this bundle took more than {CPU_SECONDS:g} s of CPU time")
        if child.returncode != 0:
            raise CheckFailed(f"its process ended with status {child.returncode}")
        answer: dict[str, Any] = json.loads(output)
        return answer


def main(tar: BinaryIO, request: dict[str, Any]) -> dict[str, Any]:
    """Check a bundle in this process, and return the answer to the parent; it is empty if the bundle is valid."""
    _limit(request)
    try:
        files = unpack(tar, max_bytes=request["max_bytes"])
    except InvalidBundle as error:
        return {"rejection": str(error)}
    except OSError as error:
        return {"unreadable": str(error)}
    try:
        if digest(files[MANIFEST]) != request["sha256"]:
            raise InvalidBundle("the stored bundle is not the one that was registered")
        check_golden(load_detector(files, device="cpu", max_pixels=request["max_pixels"]), files)
    except (InvalidBundle, Undecodable) as error:
        return {"rejection": str(error)}
    except Exception as error:  # noqa: BLE001 - such as too little memory; every check must end with a reason
        return {"failure": f"{type(error).__name__}: {error}".rstrip(": ")}
    return {}


def _limit(request: dict[str, Any]) -> None:
    """Limit this process. Exceeding a time limit ends it.

    It limits the elapsed time itself too, because the parent may have died.
    """
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # if memory runs out, the kernel ends this process and not the worker
        Path("/proc/self/oom_score_adj").write_text("1000")
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_limit = math.ceil(used.ru_utime + used.ru_stime + request["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = (
        MEMORY_BASE_BYTES
        + MEMORY_PER_BUNDLE_BYTE * request["max_bytes"]
        + MEMORY_BYTES_PER_PIXEL * request["max_pixels"]
    )
    resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(2 * request["wall_seconds"], exit=True)


if __name__ == "__main__":
    print(json.dumps(main(sys.stdin.buffer, json.loads(sys.argv[1]))))
