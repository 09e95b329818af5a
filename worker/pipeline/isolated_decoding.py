"""Decoding suspect images in a child process that may die, and drawing heatmaps there.

An image is suspect when its lease ran out once: it may have killed the worker that held it. A heatmap is drawn on the
image in full, which nobody has decoded so before. The child does one image after another; when it dies or hangs,
the image in hand gets a second child, and is poison if that dies too.

Run as a program, this module is that child: it reads one JSON line an image from standard input, followed by the heat
where the image is to be drawn, and answers each with one JSON line, followed by the bytes of the prepared image or
of the drawn one where there are any. The line says in `bytes` how many follow.
"""

import faulthandler
import io
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
from core.html.rendering import IMAGE_SIDE, jpeg
from core.intake.image_decoding import Undecodable, decode
from core.vision.evaluation.heatmap import Heat, overlay
from core.vision.input.preprocessing import Preprocessing, SizedImage, prepare

log = logging.getLogger(__name__)

SECONDS_PER_IMAGE = 10.0
SECONDS_A_HEATMAP = 20.0
DEATHS_TO_BE_POISON = 2
_COMPRESS_LEVEL = 1  # a third larger than Pillow's 6, in a fifth of its time


class _ChildDied(Exception):  # noqa: N818 - it reads as what happened
    """The child ended, or did not answer in time."""


class IsolatedDecoder:
    """Prepares images in a child process; the child is started when the first one comes."""

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

    def prepare(self, path: Path) -> SizedImage:
        """As `core.vision.input.preprocessing.prepare`, of a file.

        Raises:
            Undecodable: also with `Failure.POISON`, when the child died on it twice.
        """
        question = {"path": str(path), "preprocessing": self._preprocessing.model_dump(mode="json")}
        answer, data = self._ask_twice(question, seconds=SECONDS_PER_IMAGE)
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(answer["shape"])
        return SizedImage(pixels, answer["width"], answer["height"])

    def heatmap(self, path: Path, heat: Heat) -> bytes:
        """`core.vision.evaluation.heatmap.overlay` of a file, as PNG.

        Raises:
            Undecodable: see `prepare`.
        """
        question = {"path": str(path), "heat": heat.shape, "bytes": heat.nbytes}
        return self._ask_twice(question, heat.tobytes(), seconds=SECONDS_A_HEATMAP)[1]

    def encode_example(self, path: Path, heat: Heat | None = None) -> bytes:
        """A file as it stands on a page, as it is or with heat laid over: a JPEG, no side above 320 pixels.

        Raises:
            Undecodable: see `prepare`.
        """
        cells = np.empty((0, 0), np.float32) if heat is None else heat
        question = {"path": str(path), "heat": cells.shape, "bytes": cells.nbytes, "side": IMAGE_SIDE}
        return self._ask_twice(question, cells.tobytes(), seconds=SECONDS_A_HEATMAP)[1]

    def _ask_twice(
        self, question: dict[str, Any], data: bytes = b"", *, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        for _ in range(DEATHS_TO_BE_POISON):
            try:
                return self._ask({**question, "max_pixels": self._max_pixels, "seconds": seconds}, data)
            except _ChildDied as death:
                log.warning("the decoding child died on %s: %s", Path(question["path"]).name, death)
                self._end()
        raise Undecodable(
            Failure.POISON, f"Decoding this image killed its process {DEATHS_TO_BE_POISON} times; it was given up."
        )

    def _ask(self, question: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        child = self._running()
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        try:
            child.stdin.write(json.dumps(question).encode() + b"\n" + data)
            child.stdin.flush()
        except OSError as error:
            raise _ChildDied(str(error)) from error
        answer = self._answer(child, question["seconds"])
        if "failure" in answer:
            raise Undecodable(Failure(answer["failure"]), answer["detail"])
        content = child.stdout.read(answer["bytes"])
        if len(content) != answer["bytes"]:
            raise _ChildDied("it ended in the middle of an answer")
        return answer, content

    def _answer(self, child: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        assert child.stdout is not None  # noqa: S101 - it is a pipe
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise _ChildDied(f"no answer within {seconds:g} s")
        line = child.stdout.readline()
        if not line:
            raise _ChildDied(f"it ended with status {child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "worker.pipeline.isolated_decoding"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until there are no more questions; that is also when the parent has died.

    An image that hangs ends the child by the child's own clock, for there may be no parent left to do so.
    """
    for line in questions:
        question = json.loads(line)
        faulthandler.dump_traceback_later(2 * question["seconds"], exit=True)
        answer: dict[str, Any] = {}
        try:
            if "heat" in question:
                data = _drawn(question, questions.read(question["bytes"]))
            else:
                answer, data = _prepared(question)
        except Undecodable as error:
            answer, data = {"failure": error.failure, "detail": error.detail}, b""
        answers.write(json.dumps({**answer, "bytes": len(data)}).encode() + b"\n" + data)
        answers.flush()
    faulthandler.cancel_dump_traceback_later()


def _prepared(question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    preprocessing = Preprocessing.model_validate(question["preprocessing"])
    image = prepare(Path(question["path"]).read_bytes(), preprocessing, max_pixels=question["max_pixels"])
    answer = {"shape": image.pixels.shape, "width": image.width, "height": image.height}
    return answer, image.pixels.tobytes()


def _drawn(question: dict[str, Any], heat: bytes) -> bytes:
    """The image under its heat, where there is any; with a `side` it is made to fit a page."""
    side = question.get("side")
    at_least = None if side is None else (side, side)
    image = decode(Path(question["path"]).read_bytes(), max_pixels=question["max_pixels"], at_least=at_least)
    if side is not None:
        image.thumbnail((side, side))
    if heat:
        image = overlay(image, np.frombuffer(heat, dtype=np.float32).reshape(question["heat"]))
    if side is not None:
        return jpeg(image)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=_COMPRESS_LEVEL)
    return out.getvalue()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
