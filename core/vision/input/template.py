"""Templates: find the small shift and turn of an image against the mean of good parts.

First, the image is correlated with each template at turns of whole degrees, by products of spectra. The frequencies are
weighted by how little good parts differ from their template at them: a matched filter, the best estimate for a known
shape in noise of a known spectrum. (A phase correlation gives all frequencies the same weight; its shift was wrong by
more than 3 % for half of the elpv poly cells.) Then, least squares with robust weights, so that a defect has little
influence, after Lucas & Kanade, "An Iterative Image Registration Technique" (IJCAI 1981), on smoothed images first.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.vision.input.geometry import Affine, resample

Grey = NDArray[np.float32]
"""A small grey copy of an image: float32, (rows, columns), or several: (N, rows, columns)."""

REACH: Final = 0.08
"""The largest shift that is searched for, as a share of each side."""
_TURNS: Final = np.arange(-7.0, 7.1)
"""The turns of the first step, degrees."""
_PENALTY: Final = 0.2
"""Share of the correlation that is taken off for a shift of `REACH`, and less for smaller ones. Where a part looks the
same along a direction, as a cell does along its busbars, the smaller shift is the more likely one."""
_STAGES: Final = ((1.0, 4), (0.0, 2))
"""Standard deviation of the smoothing in pixels, and the number of rounds of least squares. Of elpv poly cells moved by
up to 4 %, the shift of one in ten was wrong by 1.3 % or more without the first stage, and by 0.7 % with it."""
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
    """

    right: float
    down: float
    degrees: float

    def affine(self, width: float, height: float) -> Affine:
        """Return the map from the template to the image, for images of this size with square pixels."""
        turn = Affine.turn(self.degrees).about(width / 2, height / 2)
        return Affine.shift(self.right * width, self.down * height) @ turn


@dataclass(frozen=True)
class Match:
    """The motion of an image against the template that it matches best.

    Attributes:
        kind: the index of the template.
        motion: against it.
        correlation: of the aligned image and the template, both weighted, -1 to 1.
    """

    kind: int
    motion: Motion
    correlation: float


@dataclass(frozen=True)
class _Stage:
    """What one stage of least squares expects.

    Attributes:
        smoothing: weight of each frequency: (rows, columns // 2 + 1).
        expected: the weighted templates: (K, pixels).
        slopes: the change of each pixel when the image moves right, down, and turns by a radian: (K, 3, pixels).
        rounds: how often the motion is improved.
    """

    smoothing: Grey
    expected: Grey
    slopes: Grey
    rounds: int


class Templates:
    """The means of K kinds of good parts, ready to find the motion of an image. Thread-safe.

    Attributes:
        means: float32, (K, rows, columns), each of mean 0 and standard deviation 1.
        size: (columns, rows).
    """

    def __init__(self, means: Grey, noise: NDArray[np.float64]) -> None:
        """Prepare templates.

        Args:
            means: (K, rows, columns) of small copies of good parts, whatever their levels.
            noise: see `noise_power`.
        """
        _, rows, columns = means.shape
        self.means = standardise(means)
        self.size = (columns, rows)
        self._weights = _noise_weights(rows, columns, noise)
        centre = (columns / 2, rows / 2)
        turns = [Affine.turn(-degrees).about(*centre) for degrees in _TURNS]
        self._spectra = np.stack([self._spectrum(resample_grey(mean, turn)) for mean in self.means for turn in turns])
        self._spectra = self._spectra.conj().reshape(len(means), len(turns), *self._weights.shape)
        y, x = (axis.astype(np.float32) for axis in np.mgrid[:rows, :columns] + 0.5)
        self._from_centre = np.stack([x - columns / 2, y - rows / 2])
        self._stages = [self._stage(deviation, rounds) for deviation, rounds in _STAGES]
        self._reach = (max(math.ceil(REACH * columns), 1), max(math.ceil(REACH * rows), 1))

    def find(self, grey: Grey) -> Match:
        """Return the motion of a small copy (rows, columns) of an image, whatever its levels."""
        spectrum = self._spectrum(standardise(grey))
        match = self._correlate(spectrum)
        for stage in self._stages:
            match = self._refine(self._image(spectrum * stage.smoothing), match, stage)
        return match

    def _stage(self, deviation: float, rounds: int) -> _Stage:
        frequencies = _frequencies(self.size[1], self.size[0])
        # The transform of a Gaussian.
        smoothing = np.exp(-2 * (math.pi * deviation * frequencies) ** 2).astype(np.float32)
        expected = np.stack([self._image(self._spectrum(mean) * smoothing) for mean in self.means])
        down, right = np.gradient(expected, axis=(1, 2))
        x, y = self._from_centre
        slopes = -np.stack([right, down, down * x - right * y], axis=1)
        kinds = len(self.means)
        return _Stage(smoothing, expected.reshape(kinds, -1), slopes.reshape(kinds, 3, -1), rounds)

    def _spectrum(self, grey: Grey) -> NDArray[np.complex64]:
        """Return the weighted spectrum of an image, of length 1: (rows, columns // 2 + 1)."""
        weighted = np.fft.rfft2(grey).astype(np.complex64) * self._weights
        return weighted / np.float32(max(float(np.linalg.norm(weighted)), _TINY))

    def _image(self, spectrum: NDArray[np.complex64]) -> Grey:
        """Return the image of a spectrum, of standard deviation 1."""
        image = np.fft.irfft2(spectrum, s=self.size[::-1]).astype(np.float32)
        return image / np.float32(max(float(image.std()), float(np.finfo(np.float32).tiny)))

    def _correlate(self, spectrum: NDArray[np.complex64]) -> Match:
        """Return the motion with the highest correlation, interpolated between the steps."""
        correlations = np.fft.irfft2(spectrum * self._spectra, s=self.size[::-1]).astype(np.float32)
        columns, rows = self.size
        across, along = self._reach
        # One more on each side than is searched, for the interpolation. Shifts wrap around.
        near = np.roll(correlations, (along + 1, across + 1), axis=(2, 3))[..., : 2 * along + 3, : 2 * across + 3]
        y, x = np.mgrid[-along : along + 1, -across : across + 1]
        penalty = _PENALTY * float(near.max()) * ((x / across) ** 2 + (y / along) ** 2)
        searched = near[:, 1:-1, 1:-1, 1:-1] - penalty
        kind, turn, row, column = (int(each) for each in np.unravel_index(int(searched.argmax()), searched.shape))
        turn, row, column = turn + 1, row + 1, column + 1
        motion = Motion(
            right=(column - across - 1 + _vertex(near[kind, turn, row, column - 1 : column + 2])) / columns,
            down=(row - along - 1 + _vertex(near[kind, turn, row - 1 : row + 2, column])) / rows,
            degrees=float(_TURNS[turn]) + _vertex(near[kind, turn - 1 : turn + 2, row, column]),
        )
        return Match(kind, motion, 0.0)

    def _refine(self, image: Grey, start: Match, stage: _Stage) -> Match:
        """Improve a motion by least squares between a weighted image and its template."""
        columns, rows = self.size
        expected, slopes = stage.expected[start.kind], stage.slopes[start.kind]
        motion, correlation = start.motion, start.correlation
        for _ in range(stage.rounds):
            moved = resample_grey(image, motion.affine(columns, rows), Image.Resampling.BILINEAR).ravel()
            weights = self._within(motion)
            gain = float((weights * moved) @ expected) / max(float(weights @ expected**2), _TINY)
            residual = moved - gain * expected
            spread = math.sqrt(float(weights @ residual**2) / max(float(weights.sum()), 1.0))
            weights /= 1 + (residual / (_ROBUST_FROM * max(spread, _TINY))) ** 2
            correlation = _correlation(moved, expected, weights)
            step = self._step(residual, slopes, weights, gain)
            if step is None:
                break
            across, along, radians = step
            turn = Affine.turn(motion.degrees)
            motion = Motion(
                motion.right + (turn.xx * across + turn.xy * along) / columns,
                motion.down + (turn.yx * across + turn.yy * along) / rows,
                motion.degrees + math.degrees(radians),
            )
        return Match(start.kind, motion, correlation)

    def _within(self, motion: Motion) -> Grey:
        """Return 1 for pixels of the template that lie within the moved image, else 0: (pixels,)."""
        columns, rows = self.size
        x, y = self._from_centre
        turn = Affine.turn(motion.degrees)
        column = turn.xx * x + (turn.xy * y + motion.right * columns)
        row = turn.yx * x + (turn.yy * y + motion.down * rows)
        within = (np.abs(column) < columns / 2 - _EDGE) & (np.abs(row) < rows / 2 - _EDGE)
        weights: Grey = within.ravel().astype(np.float32)
        return weights

    def _step(self, residual: Grey, slopes: Grey, weights: Grey, gain: float) -> tuple[float, float, float] | None:
        """Return the remaining shift in pixels and turn in radians; None if the image says nothing about them."""
        if gain <= _TINY:
            return None
        weighted = slopes * weights
        normal = (weighted @ slopes.T).astype(np.float64) + _TINY * np.eye(3)
        across, along, radians = (np.linalg.solve(normal, (weighted @ residual).astype(np.float64)) / gain).tolist()
        if not max(abs(across), abs(along), abs(radians) * max(self.size)) < min(self.size) / 4:
            return None
        return across, along, radians


def standardise(grey: Grey) -> Grey:
    """Return images with mean 0 and standard deviation 1 each; 0 if one is flat."""
    centred = grey - grey.mean(axis=(-2, -1), keepdims=True)
    standard: Grey = centred / np.maximum(centred.std(axis=(-2, -1), keepdims=True), _TINY)
    return standard


def resample_grey(grey: Grey, to_image: Affine, resampling: Image.Resampling = Image.Resampling.BICUBIC) -> Grey:
    """Return `core.vision.input.geometry.resample` of a small copy, in its own size."""
    return np.asarray(resample(Image.fromarray(grey), to_image, (grey.shape[1], grey.shape[0]), resampling))


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
    centres = (np.arange(len(noise)) + 0.5) / len(noise) / math.sqrt(2)
    weights = (1 / np.sqrt(np.interp(_frequencies(rows, columns), centres, noise))).astype(np.float32)
    weights[0, 0] = 0
    return weights


def _frequencies(rows: int, columns: int) -> NDArray[np.float64]:
    """Return the frequency of each value of a spectrum in cycles a pixel: (rows, columns // 2 + 1)."""
    frequencies: NDArray[np.float64] = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    return frequencies


def _vertex(values: Grey) -> float:
    """Return the position of the vertex of the parabola through three values, -0.5 to 0.5 from the middle one."""
    before, middle, after = values.tolist()
    curvature = before - 2 * middle + after
    return min(max((before - after) / (2 * curvature), -0.5), 0.5) if curvature < 0 else 0.0


def _correlation(first: Grey, second: Grey, weights: Grey) -> float:
    lengths = float(weights @ first**2) * float(weights @ second**2)
    return float((weights * first) @ second) / math.sqrt(lengths) if lengths > 0 else 0.0
