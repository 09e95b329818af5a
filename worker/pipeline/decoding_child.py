"""The child process of `worker.pipeline.isolated_decoding`: decodes images, and draws their heat, within limits.

It is run as a program; `worker.pipeline.limited_child` describes the conversation. The heat follows a request if the
image is to be drawn; the decoded or drawn image follows the answer. It imports no torch, which would take a second or
two and half a gigabyte.
"""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

from core.html.rendering import jpeg
from core.intake.deep_grey import DeepGrey
from core.vision.evaluation.heatmap import overlay
from core.vision.input.bit_depth import decode_visible
from core.vision.input.decoding import decode
from core.vision.input.record import Preprocessing
from worker.pipeline.limited_child import Answer, serve

_COMPRESS_LEVEL = 1  # a third larger than Pillow's default, in a fifth of its time


def _handle(request: dict[str, Any], heat: bytes) -> Answer:
    return ({}, _draw(request, heat)) if "heat" in request else _decode(request)


def _decode(request: dict[str, Any]) -> Answer:
    preprocessing = Preprocessing.model_validate(request["preprocessing"])
    decoded = decode(Path(request["path"]).read_bytes(), preprocessing, max_pixels=request["max_pixels"])
    content, deep = decoded.content, {}
    if isinstance(content, DeepGrey):
        deep = {"stored_bits": content.stored_bits, "named_bits": content.named_bits}
    pixels = content.levels if isinstance(content, DeepGrey) else np.asarray(content)
    answer = {"shape": pixels.shape, "width": decoded.width, "height": decoded.height, "deep": deep}
    return answer, pixels.tobytes()


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
