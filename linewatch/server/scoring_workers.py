"""How many scoring workers a machine runs, and what each of them is given: cores or a GPU, and memory that it keeps."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_CORES_PER_WORKER: Final = 8
"""Decoding and scoring run without the interpreter's lock, but what is around them needs it: about a tenth."""
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
KEPT_MEMORY: Final = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
}
"""glibc would return the memory of each decoded image to the system, and the next one would wait for fresh pages."""


def plan_scoring_workers(number: int | None, device: str, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what is set in the environment of each scoring worker. What the environment sets itself takes precedence.

    Args:
        number: of the workers; None for one for each GPU or, without a GPU, for every eight cores.
        device: `auto`, `cpu` or `cuda`.
        environment: the variables of this process.
    """
    gpus = [] if device == "cpu" else _gpus(environment)
    number = number or len(gpus) or max(1, cores() // _CORES_PER_WORKER)
    threads = str(max(1, cores() // number))
    common = {name: value for name, value in KEPT_MEMORY.items() if name not in environment}
    common |= {name: threads for name in _THREADS if name not in environment}
    if not gpus:
        return [common] * number
    return [{**common, "CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(number)]


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    if (chosen := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in chosen.split(",") if name.strip()]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def cores() -> int:
    """The number of cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
