"""Compare two grey images in detail: are they the same shot of the same part, up to noise, light and a small shift?

The images are registered, the fine detail of one is predicted from the other, and what is not predicted is judged in
blocks. Noise leaves about the same residual everywhere; a part in a similar pose, or with other scratches, leaves more
where there is detail.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from core.vision.training.looks import Pixels

_FINEST: Final = 1.2
_COARSEST: Final = 9
"""Detail is what a Gaussian of this standard deviation keeps and two means of this width remove, in pixels. Without
the finest scales, an interpolated shift or a JPEG changes little."""
_REACH: Final = 0.02
_LEAST_REACH: Final = 3
"""The largest shift, as a share of the longer side, but at least so many pixels."""
_SIZES: Final = 0.05  # images whose sides differ by more than this share are not the same shot
_BLOCK: Final = 16
_FADE: Final = 12  # the outer twelfths of a side are faded out to find the shift
_ROUNDING: Final = 0.01  # the residual that rounding to 8 bits leaves
_QUIET: Final = 0.25  # quantile of the residual over blocks that counts as noise
_NOISE: Final = 3.0
_DETAIL: Final = 4.0
"""A residual up to `_NOISE` times the noise of the pair counts as noise, because noise grows with brightness; blocks
have detail if their energy is above `_DETAIL` times the noise."""
_UNEXPLAINED: Final = 0.08
"""A residual up to this share of the energy of a block counts as explained: light and registration are not perfect."""
_DIFFERENT: Final = 0.1
"""Images differ if more than this share of the blocks with detail is unexplained."""
_TURN: Final = 0.3
"""How far a turn may move the corners, in pixels: a part that was laid down again is turned by more.

With these constants, 81 % of repeated shots of magnetic tiles, in other light and cut out anew, count as the same, and
none of the most similar pairs of different tiles, screws and bottles; of solar cells, which lie still and have little
detail of their own, 43 % do.
"""


@dataclass
class Detail:
    """The fine detail of a grey image: float32, (height, width), with the mean 0."""

    pixels: Pixels
    _transforms: dict[tuple[int, int], NDArray[np.complex64]] = field(default_factory=dict)

    def transform(self, shape: tuple[int, int]) -> NDArray[np.complex64]:
        """Return the Fourier transform, padded to a shape. It is kept."""
        if shape not in self._transforms:
            windows = [np.minimum(1, np.arange(1, size + 1) * _FADE / size) for size in self.pixels.shape]
            rows, columns = (np.minimum(window, window[::-1]).astype(np.float32) for window in windows)
            self._transforms[shape] = fft.rfft2(self.pixels * rows[:, None] * columns, s=shape)
        return self._transforms[shape]


@dataclass(frozen=True)
class Comparison:
    """What two images have in common.

    Attributes:
        same: whether they may be the same shot: they differ by no more than noise, light and a small shift.
        residual: the share of the energy of the detail that is not common to both, 0 to 1.
        disagreement: 1 less the median, over the blocks, of the correlation of their details, 0 to 2.
    """

    same: bool
    residual: float
    disagreement: float


_UNLIKE: Final = Comparison(same=False, residual=1.0, disagreement=1.0)


def make_detail(grey: Pixels) -> Detail:
    """Return the fine detail of a grey image: float32, (height, width), 0 to 255."""
    coarse = ndimage.uniform_filter(ndimage.uniform_filter(grey, _COARSEST), _COARSEST)
    return Detail(ndimage.gaussian_filter(grey, _FINEST, truncate=3) - coarse)


def compare(first: Detail, second: Detail) -> Comparison:
    """Compare two images of about the same size; a small shift does not count."""
    if any(abs(a - b) > _SIZES * max(a, b) for a, b in zip(first.pixels.shape, second.pixels.shape, strict=True)):
        return _UNLIKE
    reach = max(_LEAST_REACH, round(_REACH * max(*first.pixels.shape, *second.pixels.shape)))
    left, right, shift = _register(first, second, reach)
    block = min(_BLOCK, max(4, min(left.shape) // 8))
    if min(left.shape) < 2 * block:
        return _UNLIKE
    predicted, fraction, turn = _predict(left, right)
    moved = float(np.abs(shift - fraction).max())
    inner = right[1:-1, 1:-1]
    residual = _block_means((inner - predicted) ** 2, block)
    energies = _block_means(inner**2, block), _block_means(predicted**2, block)
    energy = energies[0] + energies[1]
    noise = max(float(np.quantile(residual, _QUIET)), _ROUNDING)
    detailed = energy > _DETAIL * noise
    shares = np.where(residual > _NOISE * noise, residual / np.maximum(energy, _ROUNDING), 0)[detailed]
    unexplained = float(np.quantile(shares, 1 - _DIFFERENT)) if len(shares) else 1.0
    agreement = _block_means(inner * predicted, block) / np.sqrt(energies[0] * energies[1] + _ROUNDING**2)
    return Comparison(
        same=unexplained <= _UNEXPLAINED and moved <= reach + 0.5 and turn <= _TURN,
        residual=float(np.clip(residual.sum() / max(energy.sum(), _ROUNDING), 0, 1)),
        disagreement=float(1 - np.median(agreement)),
    )


def _register(first: Detail, second: Detail, reach: int) -> tuple[Pixels, Pixels, NDArray[np.float64]]:
    """Find the shift by whole pixels with the highest correlation, at most `reach` down or across.

    Returns:
        The parts of both images that overlap, and the shift of the second one, (down, across).
    """
    shapes = first.pixels.shape, second.pixels.shape
    height, width = (fft.next_fast_len(max(sizes) + reach, real=True) for sizes in zip(*shapes, strict=True))
    spectrum = first.transform((height, width)).conj() * second.transform((height, width))
    shifts = np.r_[0 : reach + 1, -reach:0]
    correlation = fft.irfft2(spectrum, s=(height, width))[np.ix_(shifts, shifts)]
    shift = shifts[list(np.unravel_index(int(correlation.argmax()), correlation.shape))]
    left, right = first.pixels, second.pixels
    for axis, step in enumerate(shift.tolist()):
        start = max(0, -step)
        stop = min(left.shape[axis], right.shape[axis] - step)
        left = np.take(left, range(start, stop), axis=axis)
        right = np.take(right, range(start + step, stop + step), axis=axis)
    return left, right, shift.astype(np.float64)


def _predict(left: Pixels, right: Pixels) -> tuple[Pixels, NDArray[np.float64], float]:
    """Predict the detail of the right image, without its border, from the left one: its contrast and position fitted.

    A shift by a fraction of a pixel is linear in the derivatives, and so is a small turn; so all are least squares.

    Returns:
        The prediction, the shift of the left image that it needs, (down, across), and how far its turn moves the
        corners, in pixels.
    """
    inner = left[1:-1, 1:-1]
    down = (left[2:, 1:-1] - left[:-2, 1:-1]) / 2
    across = (left[1:-1, 2:] - left[1:-1, :-2]) / 2
    y, x = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2) for size in inner.shape)
    terms = np.stack([inner, down, across, x * down - y[:, None] * across]).reshape(4, -1)
    products = (terms @ terms.T).astype(np.float64)
    products[np.diag_indices(4)] *= 1 + 1e-6
    products[np.diag_indices(4)] += _ROUNDING
    weights = np.linalg.solve(products, terms @ right[1:-1, 1:-1].ravel())
    predicted: Pixels = (weights.astype(np.float32) @ terms).reshape(inner.shape)
    moves = weights[1:] / max(abs(weights[0]), _ROUNDING)
    return predicted, moves[:2], float(abs(moves[2]) * np.hypot(y[-1], x[-1]))


def _block_means(values: Pixels, block: int) -> NDArray[np.float64]:
    """Return the means of blocks of this side, flat. Remainders at the edges are cut."""
    rows, columns = values.shape[0] // block, values.shape[1] // block
    blocks = values[: rows * block, : columns * block].reshape(rows, block, columns, block)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3), dtype=np.float64).ravel()
    return means
