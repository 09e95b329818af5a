"""A device runs one call at a time, and its scores do not depend on how a minibatch is divided."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.detectors.detector import Detector
from core.vision.detectors.device import Device
from core.vision.input.prepared_image import PreparedImage
from tests.fixtures.part_images import png

IMAGES = 9


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return load_detector(read_folder(bundle), device="cpu", max_pixels=1_000_000)


@pytest.fixture(scope="module")
def images(detector: Detector) -> list[PreparedImage]:
    return [detector.prepare(png(seed, scratched=seed % 2 == 0)) for seed in range(IMAGES)]


@pytest.fixture(scope="module")
def device() -> Device:
    """A CPU device with four cores, whatever this machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        return Device("cpu")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("number", range(IMAGES + 1))
def test_a_divided_minibatch_has_the_same_scores_and_maps(
    detector: Detector, images: list[PreparedImage], device: Device, number: int
) -> None:
    minibatch = images[:number]
    divided, whole = device.score(detector, minibatch), detector.score(minibatch)
    assert divided.scores.shape == (number,)
    np.testing.assert_allclose(divided.scores, whole.scores, rtol=1e-5)
    np.testing.assert_allclose(divided.maps, whole.maps, rtol=1e-3, atol=1e-5)


def test_a_device_runs_one_call_at_a_time(device: Device) -> None:
    running = threading.Lock()
    finished: list[int] = []

    def call(number: int) -> int:
        assert running.acquire(blocking=False)
        time.sleep(0.002)
        finished.append(number)
        running.release()
        return number

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda number: device.run(call, number), range(40))) == list(range(40))
    assert sorted(finished) == list(range(40))


def test_the_caller_gets_the_error_of_its_call(detector: Detector, images: list[PreparedImage], device: Device) -> None:
    broken = [np.zeros((3, 5, 3), dtype=np.uint8), *images]
    with pytest.raises((RuntimeError, ValueError)):
        device.score(detector, broken)
    assert len(device.score(detector, images).scores) == IMAGES
