"""Decode suspect images in a child process with limits, and draw heatmaps there.

An image is suspect if its lease expired, because it may have killed its worker; if it takes long to decode; or if
preparing it raised an unexpected exception. Heatmaps are drawn at full size, at which the image was not decoded before.
The child handles one image after another. If it dies, the image gets a second child; if that dies too, it is poison.

Run as a program, this module is the child: it reads one JSON line for each image from standard input, followed by the
heat if the image is to be drawn, and answers with one JSON line, followed by the prepared or drawn image. The field
`bytes` says how many bytes follow a line.
"""

import faulthandler
import io
import json
import logging
import math
import os
import resource
import selectors
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from core.errors import Failure
from core.html.rendering import IMAGE_SIDE, jpeg
from core.intake.image_decoding import Undecodable
from core.vision.evaluation.heatmap import Heat, overlay
from core.vision.input.bit_depth import decode_visible
from core.vision.input.geometry import Affine
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing

log = logging.getLogger(__name__)

CPU_SECONDS_PER_IMAGE = 30.0
QUICK_CPU_SECONDS = 3.0
"""The limit of `IsolatedDecoder.prepare_quickly`: slower images are decoded after their neighbours."""
CPU_SECONDS_PER_HEATMAP = 60.0
"""CPU time, so that a slow or busy machine does not make a good image poison."""
WALL_FACTOR = 4.0
"""The limit of elapsed time as a multiple of the CPU limit, for a child that waits without computing."""
MEMORY_BASE_BYTES = 768 * 1024**2
MEMORY_BYTES_PER_PIXEL = 32
"""Decoding takes up to 20 bytes a pixel (a WebP with alpha, with the copies that Pillow makes)."""
DEATHS_TO_BE_POISON = 2
INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""The environment variables of the child. It decodes untrusted files, so it inherits no passwords."""
_COMPRESS_LEVEL = 1  # a third larger than Pillow's default, in a fifth of its time


class _ChildDied(Exception):  # noqa: N818 - named after the event
    """The child ended, or did not answer in time."""


class Unfinished(Exception):  # noqa: N818 - it names the state of the image
    """The child did not finish an image within a short limit. That proves nothing against the image."""


class IsolatedDecoder:
    """Prepares images in a child process, which starts with the first image."""

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
        """Like `core.vision.input.preprocessing.prepare`, for a file.

        Raises:
            Undecodable: also with `Failure.POISON` if the child died twice.
        """
        return _sized(*self._ask_twice(self._preparation(path), cpu_seconds=CPU_SECONDS_PER_IMAGE))

    def prepare_quickly(self, path: Path) -> SizedImage:
        """Like `prepare`, once and with a short limit.

        Raises:
            Unfinished: the child died, or took longer than `QUICK_CPU_SECONDS`.
            Undecodable: the image cannot be decoded.
        """
        try:
            return _sized(*self._ask(self._limited(self._preparation(path), QUICK_CPU_SECONDS), b""))
        except _ChildDied as death:
            log.info("%s is decoded after the others: %s", path.name, death)
            self._end()
            raise Unfinished from death

    def heatmap(self, path: Path, heat: Heat) -> bytes:
        """`core.vision.evaluation.heatmap.overlay` of a file, as PNG.

        Raises:
            Undecodable: see `prepare`.
        """
        request = {**self._preparation(path), "heat": heat.shape, "bytes": heat.nbytes}
        return self._ask_twice(request, heat.tobytes(), cpu_seconds=CPU_SECONDS_PER_HEATMAP)[1]

    def encode_example(self, path: Path, heat: Heat | None = None) -> bytes:
        """An image for an HTML report, with or without its heat: a JPEG, no side above 320 pixels.

        Raises:
            Undecodable: see `prepare`.
        """
        cells = np.empty((0, 0), np.float32) if heat is None else heat
        request = {**self._preparation(path), "heat": cells.shape, "bytes": cells.nbytes, "side": IMAGE_SIDE}
        return self._ask_twice(request, cells.tobytes(), cpu_seconds=CPU_SECONDS_PER_HEATMAP)[1]

    def _preparation(self, path: Path) -> dict[str, Any]:
        return {"path": str(path), "preprocessing": self._preprocessing.model_dump(mode="json")}

    def _limited(self, request: dict[str, Any], cpu_seconds: float) -> dict[str, Any]:
        return {**request, "max_pixels": self._max_pixels, "cpu_seconds": cpu_seconds}

    def _ask_twice(
        self, request: dict[str, Any], data: bytes = b"", *, cpu_seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        request = self._limited(request, cpu_seconds)
        deaths = []
        for _ in range(DEATHS_TO_BE_POISON):
            try:
                return self._ask(request, data)
            except _ChildDied as death:
                log.warning("the decoding child died on %s: %s", Path(request["path"]).name, death)
                deaths.append(str(death))
                self._end()
        detail = f"Decoding this image ended its process {DEATHS_TO_BE_POISON} times: {deaths[-1]}."
        raise Undecodable(Failure.POISON, detail)

    def _ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        child = self._running()
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n" + data)
            child.stdin.flush()
        except OSError as error:
            raise _ChildDied(str(error)) from error
        answer = self._answer(child, WALL_FACTOR * request["cpu_seconds"])
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
                env={name: os.environ[name] for name in INHERITED if name in os.environ},
            )
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _sized(answer: dict[str, Any], data: bytes) -> SizedImage:
    pixels = np.frombuffer(data, dtype=answer["dtype"]).reshape(answer["shape"])
    placed = Affine(*answer["placed"]) if answer["placed"] is not None else None
    return SizedImage(pixels, answer["width"], answer["height"], tuple(answer["reasons"]), placed)


def main(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until their stream ends, which also happens when the parent dies."""
    for line in requests:
        request = json.loads(line)
        heat = requests.read(request.get("bytes", 0))
        _limit(request)
        answer: dict[str, Any] = {}
        try:
            if "heat" in request:
                data = _draw(request, heat)
            else:
                answer, data = _prepare(request)
        except Undecodable as error:
            answer, data = {"failure": error.failure, "detail": error.detail}, b""
        except Exception as error:  # noqa: BLE001 - every image must end with an error code
            detail = f"the image cannot be prepared: {type(error).__name__}: {error}".rstrip(": ")
            answer, data = {"failure": Failure.IMAGE_UNDECODABLE, "detail": detail}, b""
        answers.write(json.dumps({**answer, "bytes": len(data)}).encode() + b"\n" + data)
        answers.flush()
        faulthandler.cancel_dump_traceback_later()  # or the child would end while it waits for the next image


def _limit(request: dict[str, Any]) -> None:
    """Limit the CPU time, elapsed time and memory of this process for the next image. Exceeding a time limit ends it.

    The child limits the elapsed time itself, because the parent may have died.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_limit = math.ceil(used.ru_utime + used.ru_stime + request["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, resource.RLIM_INFINITY))
    memory = MEMORY_BASE_BYTES + MEMORY_BYTES_PER_PIXEL * request["max_pixels"]
    resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(2 * WALL_FACTOR * request["cpu_seconds"], exit=True)


def _prepare(request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    preprocessing = Preprocessing.model_validate(request["preprocessing"])
    image = prepare(Path(request["path"]).read_bytes(), preprocessing, max_pixels=request["max_pixels"])
    answer = {
        "shape": image.pixels.shape,
        "dtype": image.pixels.dtype.name,
        "width": image.width,
        "height": image.height,
        "reasons": image.reasons,
        "placed": image.placed.coefficients if image.placed is not None else None,
    }
    return answer, image.pixels.tobytes()


def _draw(request: dict[str, Any], heat: bytes) -> bytes:
    """The image with its heat, if any. If the request has a `side`, the image is reduced for a report."""
    side = request.get("side")
    image = decode_visible(
        Path(request["path"]).read_bytes(),
        Preprocessing.model_validate(request["preprocessing"]).bit_depth,
        max_pixels=request["max_pixels"],
        at_least=None if side is None else (side, side),
    )
    if side is not None:
        image.thumbnail((side, side))
    if heat:
        image = overlay(image, np.frombuffer(heat, dtype=np.float32).reshape(request["heat"]))
    if side is not None:
        return jpeg(image)
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=_COMPRESS_LEVEL)
    return out.getvalue()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
