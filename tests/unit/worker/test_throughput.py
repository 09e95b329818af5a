"""Fill and rate are means of the last five minutes."""

import pytest

from worker.pipeline.throughput import WINDOW_SECONDS, Throughput


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_means_are_those_of_the_last_minutes() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    assert throughput.means() == (None, 0.0)
    for images in (32, 16, 0):
        throughput.note(images, 32)
    assert throughput.means() == (0.75, 4.8)  # of ten seconds at least
    clock.now += 100
    throughput.note(32, 32)
    assert throughput.means() == pytest.approx((80 / 96, 0.8))
    clock.now += WINDOW_SECONDS - 50
    assert throughput.means() == pytest.approx((1.0, 32 / WINDOW_SECONDS))
    clock.now += WINDOW_SECONDS
    assert throughput.means() == (None, 0.0)
