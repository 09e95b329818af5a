"""Decode suspect images in a child process with limits, and draw heatmaps there.

An image is suspect if its lease expired, because it may have killed its worker; if it takes long to decode; or if
preparing it raised an unexpected exception. Heatmaps are drawn at full size, at which the image was not decoded before.

Run as a program, this module is the child; see `worker.pipeline.limited_child`. The heat follows a request if the image
is to be drawn, the prepared or drawn image follows the answer.
"""

import io
import logging
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from core.html.rendering import IMAGE_SIDE, jpeg
from core.vision.evaluation.heatmap import Heat, overlay
from core.vision.input.bit_depth import decode_visible
from core.vision.input.geometry import Affine
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from worker.pipeline.limited_child import Answer, ChildDied, LimitedChild, serve

log = logging.getLogger(__name__)

CPU_SECONDS_PER_IMAGE = 30.0
QUICK_CPU_SECONDS = 3.0
"""The limit of `IsolatedDecoder.prepare_quickly`: slower images are decoded after their neighbours."""
CPU_SECONDS_PER_HEATMAP = 60.0
"""CPU time, so that a slow or busy machine does not make a good image poison."""
_COMPRESS_LEVEL = 1  # a third larger than Pillow's default, in a fifth of its time


class Unfinished(Exception):  # noqa: N818 - it names the state of the image
    """The child did not finish an image within a short limit. That proves nothing against the image."""


class IsolatedDecoder:
    """Prepares images in a child process, which starts with the first image and handles one after another."""

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        self._preprocessing = preprocessing
        self._child = LimitedChild("worker.pipeline.isolated_decoding", max_pixels=max_pixels)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.end()

    def prepare(self, path: Path) -> SizedImage:
        """Like `core.vision.input.preprocessing.prepare`, for a file.

        Raises:
            Undecodable: also with `Failure.POISON` if the child died twice.
        """
        return _sized(*self._child.ask_twice(self._preparation(path), cpu_seconds=CPU_SECONDS_PER_IMAGE))

    def prepare_quickly(self, path: Path) -> SizedImage:
        """Like `prepare`, once and with a short limit.

        Raises:
            Unfinished: the child died, or took longer than `QUICK_CPU_SECONDS`.
            Undecodable: the image cannot be decoded.
        """
        try:
            return _sized(*self._child.ask(self._preparation(path), cpu_seconds=QUICK_CPU_SECONDS))
        except ChildDied as death:
            log.info("%s is decoded after the others: %s", path.name, death)
            raise Unfinished from death

    def heatmap(self, path: Path, heat: Heat) -> bytes:
        """`core.vision.evaluation.heatmap.overlay` of a file, as PNG.

        Raises:
            Undecodable: see `prepare`.
        """
        request = {**self._preparation(path), "heat": heat.shape}
        return self._child.ask_twice(request, heat.tobytes(), cpu_seconds=CPU_SECONDS_PER_HEATMAP)[1]

    def encode_example(self, path: Path, heat: Heat | None = None) -> bytes:
        """An image for an HTML report, with or without its heat: a JPEG, no side above 320 pixels.

        Raises:
            Undecodable: see `prepare`.
        """
        cells = np.empty((0, 0), np.float32) if heat is None else heat
        request = {**self._preparation(path), "heat": cells.shape, "side": IMAGE_SIDE}
        return self._child.ask_twice(request, cells.tobytes(), cpu_seconds=CPU_SECONDS_PER_HEATMAP)[1]

    def _preparation(self, path: Path) -> dict[str, Any]:
        return {"path": str(path), "preprocessing": self._preprocessing.model_dump(mode="json")}


def _sized(answer: dict[str, Any], data: bytes) -> SizedImage:
    pixels = np.frombuffer(data, dtype=answer["dtype"]).reshape(answer["shape"])
    placed = Affine(*answer["placed"]) if answer["placed"] is not None else None
    return SizedImage(pixels, answer["width"], answer["height"], tuple(answer["reasons"]), placed)


def _handle(request: dict[str, Any], heat: bytes) -> Answer:
    return ({}, _draw(request, heat)) if "heat" in request else _prepare(request)


def _prepare(request: dict[str, Any]) -> Answer:
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
    serve(sys.stdin.buffer, sys.stdout.buffer, _handle)
