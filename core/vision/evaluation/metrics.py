"""How well scores separate good from defective parts, and how well trivial controls do."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from core.vision.input.thumbnails import Thumbnails

Scores = NDArray[np.float64]

_BLOCK = 2048


def auroc(good: Scores, defective: Scores) -> float:
    """The probability that a defective part scores above a good one, ties counting one half: 0 to 1.

    By ranks, as the Mann-Whitney U statistic (Hanley & McNeil, Radiology 143 (1982), 29-36).

    Args:
        good, defective: float64, (N,) and (M,), neither empty.
    """
    if good.size == 0 or defective.size == 0:
        raise ValueError("an AUROC needs scores of good and of defective parts")
    ranks = stats.rankdata(np.concatenate([good, defective]))
    above = ranks[good.size :].sum() - defective.size * (defective.size + 1) / 2
    return float(above / (good.size * defective.size))


def auroc_interval(
    good: Scores, defective: Scores, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the AUROC; good and defective parts are resampled separately."""
    random = np.random.default_rng(seed)
    values = [auroc(random.choice(good, good.size), random.choice(defective, defective.size)) for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def controls(seen: Thumbnails, deviations: Scores, known: Thumbnails) -> dict[str, Scores]:
    """Scores that need no network, by name, each float64, (N,). A detector must beat them to have shown anything.

    Args:
        seen: thumbnails of the N images to score.
        deviations: float64, (N,): the standard deviation of each of these images, 0 to 127.5.
        known: thumbnails of the good images that the detector was trained on.

    Returns:
        `mean_brightness` (dark is suspicious), `mean_brightness_deviation` (its distance from the training mean),
        `standard_deviation` (contrast is suspicious) and `nearest_thumbnail` (the root mean square distance to the
        nearest thumbnail of a training image).
    """
    brightness = seen.mean(axis=1, dtype=np.float64)
    return {
        "mean_brightness": -brightness,
        "mean_brightness_deviation": np.abs(brightness - known.mean(dtype=np.float64)),
        "standard_deviation": deviations,
        "nearest_thumbnail": np.sqrt(_nearest_square(seen, known) / seen.shape[1]),
    }


def _nearest_square(seen: Thumbnails, known: Thumbnails) -> Scores:
    """The squared distance of each to the nearest known one, computed in blocks that do not fill the memory."""
    nearest = np.full(len(seen), np.inf)
    for start in range(0, len(known), _BLOCK):
        some = known[start : start + _BLOCK].astype(np.float64)
        for begin in range(0, len(seen), _BLOCK):
            mine = seen[begin : begin + _BLOCK].astype(np.float64)
            squares = (mine**2).sum(axis=1)[:, None] + (some**2).sum(axis=1)[None, :] - 2 * mine @ some.T
            block = nearest[begin : begin + _BLOCK]
            np.minimum(block, np.maximum(squares.min(axis=1), 0), out=block)
    return nearest
