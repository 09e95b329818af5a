"""A child process that handles one untrusted image after another, within limits of CPU time, elapsed time and memory.

A conversation has two sides: `LimitedChild` asks, and `serve` answers in the child. A request is one JSON line, and so
is its answer; the field `bytes` says how many bytes follow a line. If the child dies, the image gets a second child; if
that dies too, the image is poison.
"""

import faulthandler
import json
import logging
import math
import os
import resource
import selectors
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from core.errors import Failure
from core.intake.image_decoding import Undecodable

log = logging.getLogger(__name__)

WALL_FACTOR = 4.0
"""The limit of elapsed time as a multiple of the CPU limit, for a child that waits without computing."""
MEMORY_BASE_BYTES = 768 * 1024**2
MEMORY_BYTES_PER_PIXEL = 32
"""Decoding takes up to 20 bytes a pixel (a WebP with alpha, with the copies that Pillow makes)."""
DEATHS_TO_BE_POISON = 2
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The environment variables of the child. It decodes untrusted files, so it inherits no passwords."""

Answer = tuple[dict[str, Any], bytes]
"""The JSON object of an answer, and the bytes that follow it."""


class ChildDied(Exception):  # noqa: N818 - named after the event
    """The child ended, or did not answer in time."""


class LimitedChild:
    """A child process that starts with the first request. Not thread-safe."""

    def __init__(self, module: str, *, max_pixels: int, wall_factor: float = WALL_FACTOR) -> None:
        """Requests are handled by `module`, run as a program, which calls `serve`.

        Args:
            max_pixels: the largest accepted width times height of an image; it determines the limit of memory.
            wall_factor: the limit of elapsed time as a multiple of the CPU limit.
        """
        self._module = module
        self._max_pixels = max_pixels
        self._wall_factor = wall_factor
        self._process: subprocess.Popen[bytes] | None = None

    def ask_twice(self, request: dict[str, Any], data: bytes = b"", *, cpu_seconds: float) -> Answer:
        """Like `ask`, with a second child if the first one dies.

        Raises:
            Undecodable: also with `Failure.POISON` if both died.
        """
        deaths = []
        for _ in range(DEATHS_TO_BE_POISON):
            try:
                return self.ask(request, data, cpu_seconds=cpu_seconds)
            except ChildDied as death:
                log.warning("the decoding child died on %s: %s", Path(request["path"]).name, death)
                deaths.append(str(death))
        detail = f"Decoding this image ended its process {DEATHS_TO_BE_POISON} times: {deaths[-1]}."
        raise Undecodable(Failure.POISON, detail)

    def ask(self, request: dict[str, Any], data: bytes = b"", *, cpu_seconds: float) -> Answer:
        """Send a request with the `path` of an image, and return the answer.

        Raises:
            ChildDied: the next request gets a new child.
            Undecodable: the answer is a failure.
        """
        wall_seconds = self._wall_factor * cpu_seconds
        limits = {"max_pixels": self._max_pixels, "cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds}
        try:
            return self._converse({**request, **limits, "bytes": len(data)}, data)
        except ChildDied:
            self.end()
            raise

    def end(self) -> None:
        """End the child, if there is one. The next request starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _converse(self, request: dict[str, Any], data: bytes) -> Answer:
        process = self._running()
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n" + data)
            process.stdin.flush()
        except OSError as error:
            raise ChildDied(str(error)) from error
        answer = _first_line(process, request["wall_seconds"])
        if "failure" in answer:
            raise Undecodable(Failure(answer["failure"]), answer["detail"])
        content = process.stdout.read(answer["bytes"])
        if len(content) != answer["bytes"]:
            raise ChildDied("it ended in the middle of an answer")
        return answer, content

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
            )
        return self._process


def _first_line(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(seconds):
            raise ChildDied(f"no answer within {seconds:g} s")
    line = process.stdout.readline()
    if not line:
        raise ChildDied(f"it ended with status {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def serve(requests: IO[bytes], answers: IO[bytes], handle: Callable[[dict[str, Any], bytes], Answer]) -> None:
    """Answer requests until their stream ends, which also happens when the parent dies.

    Args:
        handle: takes a request and the bytes that follow it, and returns the answer. What it raises becomes a failure.
    """
    for line in requests:
        request = json.loads(line)
        data = requests.read(request["bytes"])
        limit(request)
        try:
            answer, content = handle(request, data)
        except Undecodable as error:
            answer, content = {"failure": error.failure, "detail": error.detail}, b""
        except Exception as error:  # noqa: BLE001 - every image must end with an error code
            detail = f"the image cannot be prepared: {type(error).__name__}: {error}".rstrip(": ")
            answer, content = {"failure": Failure.IMAGE_UNDECODABLE, "detail": detail}, b""
        answers.write(json.dumps({**answer, "bytes": len(content)}).encode() + b"\n" + content)
        answers.flush()
        faulthandler.cancel_dump_traceback_later()  # or the child would end while it waits for the next image


def limit(request: dict[str, Any]) -> None:
    """Limit the CPU time, elapsed time and memory of this process for the next image. Exceeding a time limit ends it.

    The child limits the elapsed time itself, because the parent may have died.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_limit = math.ceil(used.ru_utime + used.ru_stime + request["cpu_seconds"])
    _limit(resource.RLIMIT_CPU, cpu_limit)
    memory = MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * request["max_pixels"]
    _limit(resource.RLIMIT_DATA, memory)
    faulthandler.dump_traceback_later(2 * request["wall_seconds"], exit=True)


def _limit(kind: int, value: int) -> None:
    """Set a soft limit, at most to the hard limit that the worker was started with: nobody but root may raise that."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
