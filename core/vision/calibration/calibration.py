"""From the scores of good parts to a threshold that comes with its meaning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from core.vision.calibration.record import Calibration, ReviewBand
from core.vision.training.grouping import effective_size


class SampleTooSmall(ValueError):  # noqa: N818 - it reads as what it is
    """Too few scores for the wished false-reject rate; the message says how many are needed."""


def required_sample_size(false_reject_rate: float) -> int:
    """The smallest sample from which a threshold for this rate can be had: the smallest n with (n + 1) · rate ≥ 1."""
    return math.ceil(_exact(1 / false_reject_rate)) - 1


def calibrate(
    scores: Sequence[float] | NDArray[np.float64],
    false_reject_rate: float = 0.05,
    confidence: float = 0.95,
    *,
    review_rate: float | None = None,
    groups: Sequence[int] | None = None,
) -> Calibration:
    """Choose the threshold that rejects at most the wished share of good parts, by split conformal prediction.

    With n scores of good parts that took no part in training, and k = ⌈(n + 1)(1 - rate)⌉, a new good part scores
    above the k-th smallest with a probability of at most the rate, whatever the scores' distribution, as long as old
    and new parts are exchangeable (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-Free Predictive
    Inference for Regression", JASA 113 (2018), section 2.2; Vovk, Gammerman & Shafer, "Algorithmic Learning in a
    Random World", 2005). Given this sample, the share that is rejected follows Beta(n + 1 - k, k) (Vovk, "Conditional
    Validity of Inductive Conformal Predictors", ACML 2012, section 3); its mean and central interval are returned.
    A score that equals the threshold is `ng`, so the threshold is the next float64 above the k-th smallest score.

    Several images of one part, or of one lot, say less than as many parts. With groups, the interval is that of the
    same mean and as many independent parts as the sample is worth at least, see
    `core.vision.training.grouping.effective_size`: conservative, never narrower than without.

    Args:
        scores: of n good parts, float64, finite; parts that were neither trained on nor used to stop training.
        false_reject_rate: the wished share, above 0 and below 1.
        confidence: of the interval, above 0 and below 1.
        review_rate: the share that may be `ng` or `review`, above the false-reject rate and below 1: the same rule
            gives the review threshold; None for no review.
        groups: the part or lot of each score; None where each is independent.

    Raises:
        SampleTooSmall: k is above n; the message says how many parts are needed.
        ValueError: a score is not finite, or a rate is not within its range.
    """
    if not 0 < false_reject_rate < 1 or not 0 < confidence < 1:
        raise ValueError("the false-reject rate and the confidence must lie between 0 and 1")
    if review_rate is not None and not false_reject_rate < review_rate < 1:
        raise ValueError(
            f"the review rate must lie between the false-reject rate, {false_reject_rate:g}, and 1, "
            f"not {review_rate:g}: it is the share of good parts that may be rejected or reviewed"
        )
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise ValueError("a score of a good part is not finite: the model cannot be calibrated")
    effective = float(ordered.size) if groups is None else effective_size(groups)
    cut = _quantile(ordered, false_reject_rate, effective, confidence)
    review = None if review_rate is None else _quantile(ordered, review_rate, effective, confidence)
    return Calibration(
        threshold=cut.threshold,
        percentile=100 * (1 - false_reject_rate),
        false_reject_rate=false_reject_rate,
        expected_false_reject_rate=cut.expected,
        confidence_interval=cut.interval,
        confidence=confidence,
        sample_size=ordered.size,
        groups=None if groups is None else len(set(groups)),
        effective_sample_size=effective if effective < ordered.size else None,
        review=None
        if review is None or review_rate is None
        else ReviewBand(
            threshold=review.threshold,
            rate=review_rate,
            expected_rate=review.expected,
            confidence_interval=review.interval,
        ),
    )


@dataclass(frozen=True)
class _Quantile:
    threshold: float
    expected: float
    interval: tuple[float, float]


def _quantile(ordered: NDArray[np.float64], rate: float, effective: float, confidence: float) -> _Quantile:
    """The threshold for one rate, from n ascending scores that are worth `effective` independent ones."""
    n = ordered.size
    k = math.ceil(_exact((n + 1) * (1 - rate)))
    if k > n:
        raise SampleTooSmall(
            f"{n} good parts are too few for a false-reject rate of {rate:g}: "
            f"at least {required_sample_size(rate)} held-out good parts are needed"
        )
    expected = (n + 1 - k) / (n + 1)
    from scipy import stats  # takes a second; workers do without

    low, high = stats.beta(*_beta_parameters(expected, effective)).interval(confidence)
    return _Quantile(float(np.nextafter(ordered[max(k, 1) - 1], np.inf)), expected, (float(low), float(high)))


def _beta_parameters(expected: float, effective: float) -> tuple[float, float]:
    """The parameters of the Beta that the rejected share follows; n + 1 - k and k for n independent parts."""
    return expected * (effective + 1), (1 - expected) * (effective + 1)


@dataclass(frozen=True)
class ExpectedRateCheck:
    """Whether fresh good parts are rejected as often as a calibration promises.

    Attributes:
        verdict: `broken` if that many, or that few, rejects are too unlikely.
        rejected, of: fresh good parts.
        expected: how many rejects, least and most, are within the promise; both count.
        p_value: the probability of an outcome at least as far from what is expected, 0 to 1, two-sided.
        sentence: all of it for people.
    """

    verdict: Literal["kept", "broken"]
    rejected: int
    of: int
    expected: tuple[int, int]
    p_value: float
    sentence: str


def check_expected_rate(
    calibration: Calibration, rejected: int, of: int, groups: Sequence[int] | None = None
) -> ExpectedRateCheck:
    """Compare the rejects among fresh good parts with what a calibration promises.

    The share that is rejected follows Beta(n + 1 - k, k), see `calibrate`; so the rejects among m fresh good parts
    follow the Beta-binomial distribution of m, n + 1 - k and k, as long as they are what the calibration's parts were:
    it allows for the chance of both samples. The verdict has the calibration's confidence. Where fresh parts come in
    groups, m is as many independent parts as they are worth at least, and the rejects are scaled likewise.

    Args:
        rejected: of the fresh good parts, at or above the threshold.
        of: fresh good parts, at least 1.
        groups: the part or lot of each of them; None where each is independent.

    Raises:
        ValueError: the counts make no sense.
    """
    if of < 1 or not 0 <= rejected <= of:
        raise ValueError(f"{rejected} rejects of {of} good parts make no sense")
    worth = of if groups is None else max(1, math.floor(_exact(effective_size(groups))))
    shape = _beta_parameters(
        calibration.expected_false_reject_rate, calibration.effective_sample_size or calibration.sample_size
    )
    from scipy import stats  # takes a second; workers do without

    chances = stats.betabinom.pmf(np.arange(worth + 1), worth, *shape)
    at_most, at_least = np.cumsum(chances), np.cumsum(chances[::-1])[::-1]
    p_values = np.minimum(1, 2 * np.minimum(at_most, at_least))
    p_value = float(p_values[round(rejected * worth / of)])
    within = np.flatnonzero(p_values >= 1 - calibration.confidence)
    expected = math.floor(within[0] * of / worth), math.ceil(within[-1] * of / worth)
    kept = p_value >= 1 - calibration.confidence
    sentence = (
        f"{rejected} of {of} good parts are rejected ({rejected / of:.1%}); {expected[0]} to {expected[1]} are within "
        f"the promise of {calibration.expected_false_reject_rate:.1%}, with {calibration.confidence:.0%} confidence"
    )
    return ExpectedRateCheck("kept" if kept else "broken", rejected, of, expected, p_value, sentence)


def _exact(value: float) -> float:
    """The value without the last digits that float64 arithmetic has added: 19.000000000000004 is 19."""
    return round(value, 9)
