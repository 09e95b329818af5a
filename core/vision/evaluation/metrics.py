"""Measure how well scores separate good from defective parts, and compute trivial control scores."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from core.vision.input.thumbnails import Thumbnails

Scores = NDArray[np.float64]

_BLOCK = 2048
_SCORES_AT_ONCE = 1_000_000


def auroc(good: Scores, defective: Scores) -> float:
    """Return the probability that a defective part scores above a good one, 0 to 1. Ties count one half.

    Computed from ranks, as the Mann-Whitney U statistic (Hanley & McNeil, Radiology 143 (1982), 29-36).

    Args:
        good, defective: float64, (N,) and (M,), neither empty.
    """
    if good.size == 0 or defective.size == 0:
        raise ValueError("an AUROC needs scores of good and of defective parts")
    return float(_aurocs(good[np.newaxis], defective[np.newaxis])[0])


def _aurocs(good: Scores, defective: Scores) -> Scores:
    """Return the AUROC of each row of (R, N) and (R, M): float64, (R,)."""
    good_size, size = good.shape[1], defective.shape[1]
    ranks = stats.rankdata(np.concatenate([good, defective], axis=1), axis=1)
    above = ranks[:, good_size:].sum(axis=1) - size * (size + 1) / 2
    return np.asarray(above / (good_size * size))


def partial_auroc(good: Scores, defective: Scores, largest_rate: float) -> float:
    """Return the mean share of defective parts found, 0 to 1, over the false-reject rates up to a largest.

    It is the partial area under the curve, divided by the largest rate (McClish, Medical Decision Making 9 (1989),
    190-195), and equals the AUROC against the good parts with the highest scores (Dodd & Pepe, Biometrics 59 (2003),
    614-623).

    Args:
        good, defective: float64, (N,) and (M,), neither empty.
        largest_rate: above 0, at most 1.
    """
    count = max(round(largest_rate * good.size), 1)
    return auroc(np.sort(good)[-count:], defective)


def auroc_interval(
    good: Scores, defective: Scores, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the AUROC. Good and defective parts are resampled separately."""
    random = np.random.default_rng(seed)
    at_once = max(_SCORES_AT_ONCE // (good.size + defective.size), 1)
    values: list[Scores] = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = [(random.choice(good, good.size), random.choice(defective, defective.size)) for _ in range(count)]
        values.append(_aurocs(np.stack([row for row, _ in drawn]), np.stack([row for _, row in drawn])))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(values), [tail, 100 - tail])
    return float(low), float(high)


def controls(thumbnails: Thumbnails, deviations: Scores, known: Thumbnails) -> dict[str, Scores]:
    """Return scores that need no network, by name, each float64, (N,). A useful detector must beat them.

    Args:
        thumbnails: of the N images to score.
        deviations: float64, (N,): the standard deviation of each of these images, 0 to 127.5.
        known: thumbnails of the training images.

    Returns:
        `mean_brightness` (dark is suspicious), `mean_brightness_deviation` (its distance from the training mean),
        `standard_deviation` (contrast is suspicious) and `nearest_thumbnail` (the root mean square distance to the
        nearest thumbnail of a training image).
    """
    brightness = thumbnails.mean(axis=1, dtype=np.float64)
    return {
        "mean_brightness": -brightness,
        "mean_brightness_deviation": np.abs(brightness - known.mean(dtype=np.float64)),
        "standard_deviation": deviations,
        "nearest_thumbnail": np.sqrt(_nearest_square(thumbnails, known) / thumbnails.shape[1]),
    }


def _nearest_square(thumbnails: Thumbnails, known: Thumbnails) -> Scores:
    """Return the squared distance of each thumbnail to the nearest known one, in blocks to limit the memory."""
    nearest = np.full(len(thumbnails), np.inf)
    for start in range(0, len(known), _BLOCK):
        known_block = known[start : start + _BLOCK].astype(np.float64)
        for begin in range(0, len(thumbnails), _BLOCK):
            block = thumbnails[begin : begin + _BLOCK].astype(np.float64)
            squares = (
                (block**2).sum(axis=1)[:, None] + (known_block**2).sum(axis=1)[None, :] - 2 * block @ known_block.T
            )
            nearest_block = nearest[begin : begin + _BLOCK]
            np.minimum(nearest_block, np.maximum(squares.min(axis=1), 0), out=nearest_block)
    return nearest
