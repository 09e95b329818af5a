"""Measure the time of work on a few images, on one core or on the GPU."""

import time
from collections.abc import Callable
from typing import Final

import torch

from core.vision.detectors.detector import Detector
from core.vision.training.dataset import ImageDataset

TIMED_IMAGES: Final = 8
_ROUNDS: Final = 3


def milliseconds_per_image(work: Callable[[], object], images: int, device: str) -> float:
    """Return the time of the work for one of its images, milliseconds: the best of three rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            with torch.inference_mode():
                work()
            if device == "cuda":
                torch.cuda.synchronize()
            rounds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 1000 * min(rounds) / images


def time_detector(detector: Detector, images: ImageDataset) -> float:
    """Return the time to decode and score one image, milliseconds."""
    data = [path.read_bytes() for path in images.paths[:TIMED_IMAGES]]
    return milliseconds_per_image(
        lambda: detector.score([detector.prepare(each) for each in data]), len(data), detector.device
    )
