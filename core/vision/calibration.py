"""From the scores of good parts to a threshold that comes with its meaning."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from core.vision.bundle import Calibration


class SampleTooSmall(ValueError):  # noqa: N818 - it reads as what it is
    """Too few scores for the wished false-reject rate; the message says how many are needed."""


def needed(false_reject_rate: float) -> int:
    """The smallest sample from which a threshold for this rate can be had: the smallest n with (n + 1) · rate ≥ 1."""
    return math.ceil(_exact(1 / false_reject_rate)) - 1


def calibrate(
    scores: Sequence[float] | NDArray[np.float64], false_reject_rate: float = 0.05, confidence: float = 0.95
) -> Calibration:
    """Choose the threshold that rejects at most the wished share of good parts, by split conformal prediction.

    With n scores of good parts that took no part in training, and k = ⌈(n + 1)(1 - rate)⌉, a new good part scores
    above the k-th smallest with a probability of at most the rate, whatever the scores' distribution, as long as old
    and new parts are exchangeable (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-Free Predictive
    Inference for Regression", JASA 113 (2018), section 2.2; Vovk, Gammerman & Shafer, "Algorithmic Learning in a
    Random World", 2005). Given this sample, the share that is rejected follows Beta(n + 1 - k, k) (Vovk, "Conditional
    Validity of Inductive Conformal Predictors", ACML 2012, section 3); its mean and central interval are returned.
    A score that equals the threshold is `ng`, so the threshold is the next float64 above the k-th smallest score.

    Args:
        scores: of n good parts, float64, finite; parts that were neither trained on nor used to stop training.
        false_reject_rate: the wished share, above 0 and below 1.
        confidence: of the interval, above 0 and below 1.

    Raises:
        SampleTooSmall: k is above n; the message says how many parts are needed.
        ValueError: a score is not finite, or a rate is not within its range.
    """
    if not 0 < false_reject_rate < 1 or not 0 < confidence < 1:
        raise ValueError("the false-reject rate and the confidence must lie between 0 and 1")
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise ValueError("a score of a good part is not finite: the model cannot be calibrated")
    n = ordered.size
    k = math.ceil(_exact((n + 1) * (1 - false_reject_rate)))
    if k > n:
        raise SampleTooSmall(
            f"{n} good parts are too few for a false-reject rate of {false_reject_rate:g}: "
            f"at least {needed(false_reject_rate)} held-out good parts are needed"
        )
    rejected = stats.beta(n + 1 - k, k)
    low, high = rejected.interval(confidence)
    return Calibration(
        threshold=float(np.nextafter(ordered[max(k, 1) - 1], np.inf)),
        percentile=100 * (1 - false_reject_rate),
        false_reject_rate=false_reject_rate,
        expected_false_reject_rate=float(rejected.mean()),
        confidence_interval=(float(low), float(high)),
        confidence=confidence,
        sample_size=n,
    )


def _exact(value: float) -> float:
    """The value without the last digits that float64 arithmetic has added: 19.000000000000004 is 19."""
    return round(value, 9)
