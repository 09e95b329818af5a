"""A template: finds the small shift and turn of an image against the mean of good parts.

Two steps find them. First, the image is correlated with the template at turns of whole degrees, by products of spectra.
The frequencies are weighted by how little good parts differ from the template at them: a matched filter, the best
estimate for a known shape in noise of a known spectrum. (A phase correlation gives all frequencies the same weight; on
solar cells, its shift was wrong by more than 3 % for half of the poly cells.) Then, least squares with robust weights,
so that a defect has little influence, after Lucas & Kanade, "An Iterative Image Registration Technique" (IJCAI 1981).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.vision.input.geometry import Affine, resample

Grey = NDArray[np.float32]
"""A small grey copy of an image: float32, (rows, columns)."""
Spectrum = NDArray[np.complex64]

REACH: Final = 0.08
"""The largest shift that is searched for, as a share of each side."""
_TURNS: Final = np.arange(-7.0, 7.1)
"""The turns of the first step, degrees."""
_ITERATIONS: Final = 5
_ROBUST_FROM: Final = 2.0
"""Residuals of this many standard deviations get half the weight (Cauchy's weights)."""
_EDGE: Final = 1.0
"""Pixels next to the edge of the image that least squares leave out."""
_TINY: Final = 1e-6


@dataclass(frozen=True)
class Motion:
    """The shift and turn of an image against a template.

    Attributes:
        right, down: the shift as a share of the width and the height.
        degrees: the turn about the centre, clockwise.
        match: correlation of the aligned image and the template, both weighted, -1 to 1.
    """

    right: float
    down: float
    degrees: float
    match: float

    def affine(self, width: float, height: float) -> Affine:
        """Return the map from the template to the image, for images of this size with square pixels."""
        turn = Affine.turn(self.degrees).about(width / 2, height / 2)
        return Affine.shift(self.right * width, self.down * height) @ turn


class Template:
    """The mean of good parts, ready to find the motion of an image. Thread-safe.

    Attributes:
        mean: float32, (rows, columns), of mean 0 and standard deviation 1.
        size: (columns, rows).
    """

    def __init__(self, mean: Grey, noise: NDArray[np.float64]) -> None:
        """Prepare a template.

        Args:
            mean: of the small copies of good parts, whatever their levels.
            noise: see `noise_power`.
        """
        rows, columns = mean.shape
        self.mean = standardise(mean)
        self.size = (columns, rows)
        self._weights = _noise_weights(rows, columns, noise)
        self._reach = (max(math.ceil(REACH * columns), 1), max(math.ceil(REACH * rows), 1))
        self._padded = (rows + 2 * self._reach[1], columns + 2 * self._reach[0])
        turned = [resample_grey(self.mean, Affine.turn(-degrees).about(columns / 2, rows / 2)) for degrees in _TURNS]
        self._spectra = np.fft.rfft2(np.stack([self._weighted(each) for each in turned]), self._padded).conj()
        self._expected = self._weighted(self.mean).ravel()
        down, right = np.gradient(self._expected.reshape(rows, columns))
        y, x = (axis.astype(np.float32) for axis in np.mgrid[:rows, :columns] + 0.5)
        # The change of each pixel when the image moves to the right, down, and turns by a radian.
        turning = down * (x - columns / 2) - right * (y - rows / 2)
        self._slopes = -np.stack([right.ravel(), down.ravel(), turning.ravel()])
        self._points = np.stack([x.ravel(), y.ravel()], axis=-1)

    def find(self, grey: Grey) -> Motion:
        """Return the motion of a small copy of an image, of the size of the template, whatever its levels."""
        weighted = self._weighted(standardise(grey))
        return self._refine(weighted, self._correlate(weighted))

    def _weighted(self, grey: Grey) -> Grey:
        """Return an image with its frequencies weighted, of standard deviation 1."""
        image: Grey = np.fft.irfft2(np.fft.rfft2(grey) * self._weights, s=grey.shape)
        return image / max(float(image.std()), _TINY)

    def _correlate(self, image: Grey) -> Motion:
        """Return the motion with the highest correlation, interpolated between the steps.

        The image and the template are 0 beyond their edges, so a smaller motion is preferred where all match alike.
        """
        spectrum = np.fft.rfft2(image, self._padded)
        correlations = np.fft.irfft2(spectrum * self._spectra, s=self._padded)
        columns, rows = self.size
        across, along = self._reach
        # One more on each side than is searched, for the interpolation. Shifts wrap around.
        near = np.roll(correlations, (along + 1, across + 1), axis=(1, 2))[:, : 2 * along + 3, : 2 * across + 3]
        inner = near[1:-1, 1:-1, 1:-1]
        turn, row, column = (int(each) + 1 for each in np.unravel_index(int(inner.argmax()), inner.shape))
        return Motion(
            right=(column - across - 1 + _vertex(near[turn, row, column - 1 : column + 2])) / columns,
            down=(row - along - 1 + _vertex(near[turn, row - 1 : row + 2, column])) / rows,
            degrees=float(_TURNS[turn]) + _vertex(near[turn - 1 : turn + 2, row, column]),
            match=float(near[turn, row, column]),
        )

    def _refine(self, image: Grey, start: Motion) -> Motion:
        """Improve a motion by least squares between the weighted image and the template."""
        columns, rows = self.size
        motion = start
        for _ in range(_ITERATIONS):
            affine = motion.affine(columns, rows)
            moved = resample_grey(image, affine, Image.Resampling.BILINEAR).ravel()
            distance = np.abs(affine.apply(self._points) - (columns / 2, rows / 2))
            weights = (distance < (columns / 2 - _EDGE, rows / 2 - _EDGE)).all(axis=-1).astype(np.float32)
            gain = float((weights * moved) @ self._expected) / max(float(weights @ self._expected**2), _TINY)
            residual = moved - gain * self._expected
            spread = math.sqrt(float(weights @ residual**2) / max(float(weights.sum()), 1.0))
            weights /= 1 + (residual / (_ROBUST_FROM * max(spread, _TINY))) ** 2
            match = _correlation(moved, self._expected, weights)
            step = self._step(residual, weights, gain)
            if step is None:
                return Motion(motion.right, motion.down, motion.degrees, match)
            across, along, radians = step
            turn = Affine.turn(motion.degrees)
            motion = Motion(
                motion.right + (turn.xx * across + turn.xy * along) / columns,
                motion.down + (turn.yx * across + turn.yy * along) / rows,
                motion.degrees + math.degrees(radians),
                match,
            )
        return motion

    def _step(self, residual: Grey, weights: Grey, gain: float) -> tuple[float, float, float] | None:
        """Return the remaining shift in pixels and turn in radians; None if the image says nothing about them."""
        if gain <= _TINY:
            return None
        weighted = self._slopes * weights
        normal = (weighted @ self._slopes.T).astype(np.float64) + _TINY * np.eye(3)
        step = np.linalg.solve(normal, (weighted @ residual).astype(np.float64)) / gain
        across, along, radians = step.tolist()
        if not max(abs(across), abs(along), abs(radians) * max(self.size)) < min(self.size) / 4:
            return None
        return across, along, radians


def standardise(grey: Grey) -> Grey:
    """Return an image with mean 0 and standard deviation 1, of images (…, rows, columns); 0 if it is flat."""
    centred = grey - grey.mean(axis=(-2, -1), keepdims=True)
    standard: Grey = centred / np.maximum(centred.std(axis=(-2, -1), keepdims=True), _TINY)
    return standard


def resample_grey(grey: Grey, to_image: Affine, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> Grey:
    """Return `core.vision.input.geometry.resample` of a small copy, in its own size."""
    return np.asarray(resample(Image.fromarray(grey), to_image, grey.shape[::-1], resampling))


def noise_power(differences: Grey, count: int) -> NDArray[np.float64]:
    """Return the mean power of N images (N, rows, columns) at `count` frequencies from 0 to 1/√2 cycles a pixel."""
    power = np.mean(np.abs(np.fft.rfft2(differences)) ** 2, axis=0)
    frequencies = _frequencies(*differences.shape[1:])
    bins = np.minimum((frequencies * math.sqrt(2) * count).astype(int), count - 1).ravel()
    sums, counts = (np.bincount(bins, each, count) for each in (power.ravel(), np.ones(power.size)))
    known = counts > 0
    at = np.arange(count)
    return np.interp(at, at[known], sums[known] / counts[known])


def _noise_weights(rows: int, columns: int, noise: NDArray[np.float64]) -> Grey:
    """Return the weight of each frequency, one over the amplitude of the noise; none of the mean level."""
    frequencies = _frequencies(rows, columns)
    centres = (np.arange(len(noise)) + 0.5) / len(noise) / math.sqrt(2)
    weights = (1 / np.sqrt(np.interp(frequencies, centres, noise))).astype(np.float32)
    weights[0, 0] = 0
    return weights


def _frequencies(rows: int, columns: int) -> NDArray[np.float64]:
    """Return the frequency of each value of a spectrum in cycles a pixel: (rows, columns // 2 + 1)."""
    return np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))


def _vertex(values: Grey) -> float:
    """Return the position of the vertex of the parabola through three values, -0.5 to 0.5 from the middle one."""
    before, middle, after = values.tolist()
    curvature = before - 2 * middle + after
    return min(max((before - after) / (2 * curvature), -0.5), 0.5) if curvature < 0 else 0.0


def _correlation(first: Grey, second: Grey, weights: Grey) -> float:
    lengths = float(weights @ first**2) * float(weights @ second**2)
    return float(weights * first @ second) / math.sqrt(lengths) if lengths > 0 else 0.0
