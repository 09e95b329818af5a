"""The false-reject rate to expect at any threshold, from the scores that a threshold was calibrated with."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core import beta_distribution
from core.vision.calibration.record import Calibration

MAX_SENT_SCORES: Final = 20_000
"""Most scores that can be sent with a threshold; more would not fit into the body of a request."""


@dataclass(frozen=True)
class ExpectedRate:
    """The share of good parts that a threshold will reject.

    Attributes:
        rate: the mean share, 0 to 1; for a threshold between two scores, an upper bound of it.
        interval: (low, high) of the share, with the confidence of the calibration.
    """

    rate: float
    interval: tuple[float, float]


def expected_rate(calibration: Calibration, scores: Sequence[float], threshold: float) -> ExpectedRate:
    """Return the false-reject rate to expect at a threshold, by the rule of `core.vision.calibration.calibration`.

    At the calibrated threshold it is the one in the calibration, unless some scores are equal. If r of n scores are at
    or above the threshold, the share follows the Beta distribution of rank k = n - r: see `calibrate`.

    Args:
        calibration: of any threshold, made with these scores.
        scores: of n ≥ 1 good parts, ascending, each by a detector that was not fitted to the part.
        threshold: finite; scores at or above it are rejected.
    """
    rejected = len(scores) - bisect_left(scores, threshold)
    effective = calibration.effective_sample_size or float(len(scores))
    outside = (1 - calibration.confidence) / 2
    if rejected == len(scores):  # below every score: nothing is known about how far
        return ExpectedRate(1.0, (beta_distribution.quantile(outside, effective, 1.0), 1.0))
    rate = (rejected + 1) / (len(scores) + 1)
    shape = beta_parameters(rate, effective)
    low, high = (beta_distribution.quantile(share, *shape) for share in (outside, 1 - outside))
    return ExpectedRate(rate, (low, high))


def beta_parameters(expected_rate: float, effective: float) -> tuple[float, float]:
    """Return the parameters of the rejected share's Beta distribution: n + 1 - k and k for n independent parts."""
    return expected_rate * (effective + 1), (1 - expected_rate) * (effective + 1)
