"""A device does one thing after another, and what comes out does not depend on how a minibatch was divided."""

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
from core.vision.input.preprocessing import PreparedImage
from tests.fixtures.part_images import png

IMAGES = 9


@pytest.fixture(scope="module")
def own(bundle: Path) -> Detector:
    return load_detector(read_folder(bundle), device="cpu", max_pixels=1_000_000)


@pytest.fixture(scope="module")
def images(own: Detector) -> list[PreparedImage]:
    return [own.prepare(png(seed, scratched=seed % 2 == 0)) for seed in range(IMAGES)]


@pytest.fixture(scope="module")
def device() -> Device:
    """Of four processors, however many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        return Device("cpu")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("number", range(IMAGES + 1))
def test_images_have_their_own_scores_and_maps(
    own: Detector, images: list[PreparedImage], device: Device, number: int
) -> None:
    some = images[:number]
    divided, whole = device.score(own, some), own.score(some)
    assert divided.scores.shape == (number,)
    np.testing.assert_allclose(divided.scores, whole.scores, rtol=1e-5)
    np.testing.assert_allclose(divided.maps, whole.maps, rtol=1e-3, atol=1e-5)


def test_it_does_one_thing_at_a_time(device: Device) -> None:
    at_it = threading.Lock()
    done: list[int] = []

    def act(number: int) -> int:
        assert at_it.acquire(blocking=False)
        time.sleep(0.002)
        done.append(number)
        at_it.release()
        return number

    with ThreadPoolExecutor(8) as askers:
        assert list(askers.map(lambda number: device.run(act, number), range(40))) == list(range(40))
    assert sorted(done) == list(range(40))


def test_an_error_is_that_of_whoever_asked(own: Detector, images: list[PreparedImage], device: Device) -> None:
    broken = [np.zeros((3, 5, 3), dtype=np.uint8), *images]
    with pytest.raises((RuntimeError, ValueError)):
        device.score(own, broken)
    assert len(device.score(own, images).scores) == IMAGES
