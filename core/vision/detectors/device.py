"""What networks run on: a GPU, or the processors of this machine."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.input.preprocessing import PreparedImage

P = ParamSpec("P")
T = TypeVar("T")


class Device:
    """Runs one call after another, from whichever thread it comes. Thread-safe.

    A minibatch is divided among the processors, and each computes its part alone. That is a fifth quicker than all of
    them together at each layer, where they wait for the last one (two processors, EfficientNet-Lite0, 256 pixels), and
    more where other processes take one of them for a moment. Only fewer images than processors, which are waited for,
    are computed together.

    Attributes:
        name: `cpu` or `cuda`.
    """

    def __init__(self, wanted: str) -> None:
        """On `auto`, `cpu` or `cuda`, with as many processors as `OMP_NUM_THREADS` says, or there are.

        Raises:
            ValueError: there is no such device here.
        """
        self.name = resolve_device(wanted)
        processors = torch.get_num_threads()
        self._parts = processors if self.name == "cpu" else 1
        # How many threads compute a layer is a property of the thread that asks for it.
        self._alone = ThreadPoolExecutor(self._parts, "processor", torch.set_num_threads, (1,))
        self._together = ThreadPoolExecutor(1, "device", torch.set_num_threads, (processors,))

    def run(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `act` returns, in its turn."""
        return self._together.submit(act, *args, **kwargs).result()

    def score(self, detector: Detector, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`."""
        return self.run(self._score, detector, images)

    def _score(self, detector: Detector, images: Sequence[PreparedImage]) -> ScoredImages:
        if self._parts == 1 or len(images) < self._parts:
            return detector.score(images)
        bounds = [len(images) * part // self._parts for part in range(self._parts + 1)]
        parts = [images[start:end] for start, end in itertools.pairwise(bounds)]
        scored = list(self._alone.map(detector.score, parts))
        return ScoredImages(
            np.concatenate([one.scores for one in scored]),
            np.concatenate([one.maps for one in scored]),
        )


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: there is no such device here.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"the device must be auto, cpu or cuda, not {device!r}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("there is no CUDA device here: set LINEWATCH_DEVICE or --device to auto or cpu")
    return "cuda" if device != "cpu" and available else "cpu"


def disable_tf32(device: str) -> None:
    """Let a GPU multiply with all digits of float32: TF32 keeps ten bits, and golden scores would not be reproduced."""
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
