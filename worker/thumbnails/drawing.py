"""Make thumbnails in a child process with limits, which gets what scoring leaves of the CPUs.

Run as a program, this module is the child; see `worker.pipeline.limited_child`. The grey copy and the JPEG follow an
answer. It imports neither torch nor scipy, which the io worker may lack.
"""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.models.bit_depths import BitDepth
from core.vision.evaluation.thumbnail import GREY_BYTES, Thumbnail, make_thumbnail
from worker.pipeline.limited_child import Answer, LimitedChild, serve

CPU_SECONDS_PER_IMAGE = 30.0
WALL_FACTOR = 12.0
"""Larger than for scoring: while scoring keeps all CPUs busy, the child gets about a tenth of one."""
NICENESS = 10


class ThumbnailDrawer:
    """Makes thumbnails in a child process, which starts with the first image and handles one after another."""

    def __init__(self, *, max_pixels: int) -> None:
        self._child = LimitedChild("worker.thumbnails.drawing", max_pixels=max_pixels, wall_factor=WALL_FACTOR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the child, if there is one. The next image starts another."""
        self._child.end()

    def draw(self, path: Path, bit_depth: BitDepth | None) -> Thumbnail:
        """See `core.vision.evaluation.thumbnail.make_thumbnail`.

        Raises:
            Undecodable: the image cannot be decoded; also with `Failure.POISON` if it ended two children, and with
                `Failure.IMAGE_MISSING` if the file cannot be read.
        """
        request = {"path": str(path), "bit_depth": bit_depth}
        _, content = self._child.ask_twice(request, cpu_seconds=CPU_SECONDS_PER_IMAGE)
        return Thumbnail(jpeg=content[GREY_BYTES:], grey=content[:GREY_BYTES])


def _handle(request: dict[str, Any], _: bytes) -> Answer:
    try:
        data = Path(request["path"]).read_bytes()
    except OSError as error:
        raise Undecodable(Failure.IMAGE_MISSING, f"The image cannot be read: {error.strerror or error}.") from error
    thumbnail = make_thumbnail(data, request["bit_depth"], max_pixels=request["max_pixels"])
    return {}, thumbnail.grey + thumbnail.jpeg


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer, _handle)
