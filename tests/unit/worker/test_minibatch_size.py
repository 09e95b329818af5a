"""The warm-up finds the smallest minibatch that is about as fast as the fastest."""

import pytest
import torch

from worker.pipeline.minibatch_size import find_minibatch_size


class Gpu:
    """Takes a fixed time for each call and for each image, on a clock of its own."""

    def __init__(self, per_call: float, per_image: float, memory: int = 10**9) -> None:
        self.now, self.scored = 0.0, 0
        self._per_call, self._per_image, self._memory = per_call, per_image, memory

    def score(self, images: int) -> None:
        if images > self._memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.now += self._per_call + self._per_image * images
        self.scored += images

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("per_call", "per_image", "memory", "expected"),
    [
        (0.0, 1.0, 10**9, 32),  # like a CPU: larger is not faster
        (10.0, 1.0, 10**9, 256),  # 256 reaches 0.96 and 1024 0.99 of the rate without a cost per call
        (1000.0, 1.0, 10**9, 1024),  # the largest that is tried
        (1000.0, 1.0, 200, 128),  # as much as there is memory for
    ],
)
def test_the_smallest_that_is_about_as_fast_is_taken(
    per_call: float, per_image: float, memory: int, expected: int
) -> None:
    gpu = Gpu(per_call, per_image, memory)
    assert find_minibatch_size(gpu.score, 32, gpu.clock) == expected


def test_the_warm_up_is_short() -> None:
    gpu = Gpu(1000.0, 1.0)
    find_minibatch_size(gpu.score, 32, gpu.clock)
    assert gpu.scored <= 4 * 2048


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a bug")])
def test_a_device_that_cannot_score_even_the_smallest_says_so(error: Exception) -> None:
    def score(images: int) -> None:
        raise error

    with pytest.raises(type(error)):
        find_minibatch_size(score, 32)
