"""Decode suspect images in a child process with limits, and draw heatmaps there.

An image is suspect if its lease expired, because it may have killed its worker; if it takes long to decode; or if
preparing it raised an unexpected exception. Heatmaps are drawn at full size, at which the image was not decoded before.
The child only decodes and draws; this process resizes what was decoded. See `worker.pipeline.decoding_child`.
"""

import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from core.html.rendering import IMAGE_SIDE
from core.intake.deep_grey import DeepGrey
from core.intake.image_decoding import Decoded
from core.vision.evaluation.heatmap import Heat
from core.vision.input.prepared_image import SizedImage
from core.vision.input.preprocessing import prepare_decoded
from core.vision.input.record import Preprocessing
from worker.pipeline.limited_child import ChildDied, LimitedChild

log = logging.getLogger(__name__)

CPU_SECONDS_PER_IMAGE = 30.0
QUICK_CPU_SECONDS = 3.0
"""The limit of `IsolatedDecoder.prepare_quickly`: slower images are decoded after their neighbours."""
CPU_SECONDS_PER_HEATMAP = 60.0
"""CPU time, so that a slow or busy machine does not make a good image poison."""


class Unfinished(Exception):  # noqa: N818 - it names the state of the image
    """The child did not finish an image within a short limit. That proves nothing against the image."""


class IsolatedDecoder:
    """Prepares images in a child process, which starts with the first image and handles one after another."""

    def __init__(self, preprocessing: Preprocessing, *, max_pixels: int) -> None:
        self._preprocessing = preprocessing
        self._child = LimitedChild("worker.pipeline.decoding_child", max_pixels=max_pixels)

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
        answer = self._child.ask_twice(self._preparation(path), cpu_seconds=CPU_SECONDS_PER_IMAGE)
        return prepare_decoded(_unpacked(*answer), self._preprocessing)

    def prepare_quickly(self, path: Path) -> SizedImage:
        """Like `prepare`, once and with a short limit.

        Raises:
            Unfinished: the child died, or took longer than `QUICK_CPU_SECONDS`.
            Undecodable: the image cannot be decoded.
        """
        try:
            answer = self._child.ask(self._preparation(path), cpu_seconds=QUICK_CPU_SECONDS)
        except ChildDied as death:
            log.info("%s is decoded after the others: %s", path.name, death)
            raise Unfinished from death
        return prepare_decoded(_unpacked(*answer), self._preprocessing)

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


def _unpacked(answer: dict[str, Any], data: bytes) -> Decoded:
    """The decoded image of an answer."""
    writable, shape, deep = bytearray(data), answer["shape"], answer["deep"]
    if deep:
        levels = np.frombuffer(writable, np.uint16).reshape(shape)
        return Decoded(DeepGrey(levels, **deep), answer["width"], answer["height"])
    return Decoded(np.frombuffer(writable, np.uint8).reshape(shape), answer["width"], answer["height"])
