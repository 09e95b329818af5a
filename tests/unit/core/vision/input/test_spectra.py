"""Spectra do not change with position and exposure, but with content."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.vision.input.spectra import make_spectrum
from tests.fixtures.repeated_shots import Picture, grained_part, shot


def spectrum(picture: Picture) -> NDArray[np.float64]:
    return make_spectrum(np.repeat(picture[:, :, None], 3, axis=2).astype(np.uint8)).astype(np.float64)


@pytest.mark.parametrize("side", [64, 100, 256])
def test_a_shift_or_another_exposure_changes_little(side: int) -> None:
    def difference(first: Picture, second: Picture) -> float:
        return float(np.abs(spectrum(first) - spectrum(second)).mean())

    part = grained_part(1, side=side)
    again = shot(part, 2, gain=0.8, offset=15, shift=(1, -1))
    assert difference(shot(part, 1), again) < 0.5 * difference(shot(part, 1), shot(grained_part(2, side=side), 3))


@pytest.mark.parametrize("shape", [(8, 8), (8, 4096), (32, 48), (64, 64), (300, 500)])
def test_its_length_depends_only_on_the_size(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    made = {make_spectrum(random.integers(0, 256, (*shape, 3), dtype=np.uint8)).shape for _ in range(2)}
    [(length,)] = made
    assert length > 0
    assert np.isfinite(make_spectrum(np.zeros((*shape, 3), np.uint8))).all()
    assert length == 386 or min(shape) < 64


def test_deep_images_have_spectra_too() -> None:
    image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    np.testing.assert_allclose(make_spectrum(image), make_spectrum(np.rint(image).astype(np.uint8)), atol=0.2)
