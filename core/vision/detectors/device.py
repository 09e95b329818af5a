"""The device that networks run on: a GPU or the CPU cores of this machine."""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.input.prepared_image import PreparedImage

P = ParamSpec("P")
T = TypeVar("T")


class Device:
    """Runs calls on a device. Thread-safe.

    On a GPU, calls from all threads run one after another. On a CPU, a minibatch is divided among the cores, and each
    core scores its part on its own. That takes less time than sharing every layer among the cores, which then wait for
    the slowest at each layer, and more so when another process takes a core for a moment.

    Attributes:
        name: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        """Open `auto`, `cpu` or `cuda`. `OMP_NUM_THREADS` sets the number of cores; the default is all of them.

        Raises:
            ValueError: this machine has no such device.
        """
        self.name = resolve_device(device)
        cores = torch.get_num_threads()
        self._parts = cores if self.name == "cpu" else 1
        # torch keeps the number of threads that share a layer for each calling thread.
        self._each_core = ThreadPoolExecutor(self._parts, "core", torch.set_num_threads, (1,))
        self._device = ThreadPoolExecutor(1, "device", torch.set_num_threads, (cores,))

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function when its turn comes, and return its result or raise its exception."""
        return self._device.submit(function, *args, **kwargs).result()

    def check(self) -> None:
        """Compute something trivial.

        Raises:
            RuntimeError: the device does not work, for example after a CUDA error, or has no memory left.
        """
        self.run(lambda: torch.ones(1, device=self.name).add(1).item())

    def score(self, detector: Detector, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`."""
        if self.name != "cpu":
            return self.run(detector.score, images)
        number = min(self._parts, len(images)) or 1
        bounds = [len(images) * part // number for part in range(number + 1)]
        parts = [images[start:end] for start, end in itertools.pairwise(bounds)]
        scored = list(self._each_core.map(detector.score, parts))
        return ScoredImages(
            np.concatenate([part.scores for part in scored]),
            np.concatenate([part.maps for part in scored]),
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a call failed because the device or this machine has no memory left; later it may succeed."""
    texts = ("out of memory", "ALLOC_FAILED", "DefaultCPUAllocator")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def resolve_device(device: str) -> str:
    """Return `cpu` or `cuda`; `auto` is `cuda` if this machine has a GPU.

    Raises:
        ValueError: this machine has no such device, or the name is unknown.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"the device must be auto, cpu or cuda, not {device!r}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("this machine has no CUDA device: set LINEWATCH_DEVICE or --device to auto or cpu")
    return "cuda" if device != "cpu" and available else "cpu"


def disable_tf32(device: str) -> None:
    """Make a GPU multiply in full float32: TF32 keeps ten bits, and golden scores would not be reproduced."""
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
