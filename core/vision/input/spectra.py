"""Spectra: descriptions of images that do not change if the content moves, to find similar images without a network."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

from core.vision.input.prepared_image import PreparedImage

Spectra = NDArray[np.float16]
"""float16, (N, D); see `make_spectrum`."""

_SIDE: Final = 64
_COARSEST: Final = 3
_FINEST: Final = 16
"""Frequencies, in periods per image. Light is coarser, and noise is mostly finer."""


def make_spectrum(image: PreparedImage) -> NDArray[np.float16]:
    """Return the logarithms of the magnitudes of the image's coarse frequencies, less their mean: float16, (D,).

    D depends only on the size of the image; it is 386 if no side is shorter than 64 pixels. A shift of the content
    changes only the phases, and a different exposure only the mean.
    """
    height, width = image.shape[:2]
    grey = Image.fromarray(image.mean(axis=2, dtype=np.float32))
    small = np.asarray(grey.resize((min(width, _SIDE), min(height, _SIDE)), Image.Resampling.BOX))
    detail = small - ndimage.uniform_filter(small, max(3, min(small.shape) // 8))
    window, chosen = _window_and_frequencies(small.shape)
    magnitudes = np.abs(fft.fft2(detail * window))
    logarithms = np.log(magnitudes[chosen] + 1e-3 * magnitudes.mean() + 1e-6)
    spectrum: NDArray[np.float16] = (logarithms - logarithms.mean()).astype(np.float16)
    return spectrum


@cache
def _window_and_frequencies(shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a window that fades to the edges, and the mask of the frequencies: half of them, the others mirror it."""
    rows, columns = (np.fft.fftfreq(size) * size for size in shape)
    vertical, horizontal = np.meshgrid(rows, columns, indexing="ij")
    radius = np.hypot(vertical, horizontal)
    half = (vertical > 0) | ((vertical == 0) & (horizontal > 0))
    window = np.outer(np.hanning(shape[0] + 2)[1:-1], np.hanning(shape[1] + 2)[1:-1]).astype(np.float32)
    return window, half & (radius >= _COARSEST) & (radius <= _FINEST)
