"""Decoding suspect pictures in a child process that may die.

A picture is suspect when its lease ran out once: it may have killed the worker that held it. The child decodes one
picture after another; when it dies or hangs, the picture in hand gets a second child, and is poison if that dies too.

Run as a program, this module is that child: it reads one JSON line a picture from standard input and answers each
with one JSON line, followed by the bytes of the prepared picture where there are any.
"""

import faulthandler
import json
import logging
import selectors
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from core.errors import Failure
from core.pictures import Undecodable
from core.vision.preprocessing import Picture, Preprocessing, prepare

log = logging.getLogger(__name__)

SECONDS_A_PICTURE = 10.0
DEATHS_TO_BE_POISON = 2


class _ChildDied(Exception):  # noqa: N818 - it reads as what happened
    """The child ended, or did not answer in time."""


class IsolatedDecoder:
    """Prepares pictures in a child process; the child is started when the first one comes."""

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def prepare(self, path: Path) -> Picture:
        """As `core.vision.preprocessing.prepare`, of a file.

        Raises:
            Undecodable: also with `Failure.POISON`, when the child died on it twice.
        """
        for _ in range(DEATHS_TO_BE_POISON):
            try:
                return self._ask(path)
            except _ChildDied as death:
                log.warning("the decoding child died on %s: %s", path.name, death)
                self._end()
        raise Undecodable(
            Failure.POISON, f"Decoding this picture killed its process {DEATHS_TO_BE_POISON} times; it was given up."
        )

    def _ask(self, path: Path) -> Picture:
        child = self._running()
        question = {
            "path": str(path),
            "max_pixels": self._max_pixels,
            "preprocessing": self._preprocessing.model_dump(mode="json"),
        }
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        try:
            child.stdin.write(json.dumps(question).encode() + b"\n")
            child.stdin.flush()
        except OSError as error:
            raise _ChildDied(str(error)) from error
        answer = self._answer(child)
        if "failure" in answer:
            raise Undecodable(Failure(answer["failure"]), answer["detail"])
        data = child.stdout.read(answer["bytes"])
        if len(data) != answer["bytes"]:
            raise _ChildDied("it ended in the middle of an answer")
        return np.frombuffer(data, dtype=np.uint8).reshape(answer["shape"])

    def _answer(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(SECONDS_A_PICTURE):
                raise _ChildDied(f"no answer within {SECONDS_A_PICTURE:g} s")
        line = child.stdout.readline()
        if not line:
            raise _ChildDied(f"it ended with status {child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "worker.isolation"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there are no more questions; that is also when the parent has died.

    A picture that hangs ends the child by the child's own clock, for there may be no parent left to do so.
    """
    for line in questions:
        faulthandler.dump_traceback_later(2 * SECONDS_A_PICTURE, exit=True)
        question = json.loads(line)
        preprocessing = Preprocessing.model_validate(question["preprocessing"])
        data = Path(question["path"]).read_bytes()
        try:
            picture = prepare(data, preprocessing, max_pixels=question["max_pixels"])
        except Undecodable as error:
            _say(answers, {"failure": error.failure, "detail": error.detail})
            continue
        _say(answers, {"shape": picture.shape, "bytes": picture.nbytes}, picture.tobytes())
    faulthandler.cancel_dump_traceback_later()


def _say(answers: IO[bytes], answer: dict[str, Any], data: bytes = b"") -> None:
    answers.write(json.dumps(answer).encode() + b"\n" + data)
    answers.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
