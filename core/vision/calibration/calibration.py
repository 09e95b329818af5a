"""Calibration: a threshold from the scores of good parts, with the false-reject rate to expect from it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from core.vision.calibration.expected_rate import beta_parameters
from core.vision.calibration.record import Calibration, ReviewBand

CROSS_FITTED_WORTH: Final = 0.55
"""How much a cross-fitted score is worth, as a share of a score of one detector that has seen none of the parts. Among
60 trainings on 100 synthetic parts with ten folds, the rejected share of fresh parts lay outside the 95 % interval of
independent scores in 15 %, as if its deviation were 1.36 times as large."""


class SampleTooSmall(ValueError):  # noqa: N818 - describes the fault
    """There are too few scores for the requested false-reject rate. The message says how many are needed."""


def required_sample_size(false_reject_rate: float) -> int:
    """Return the smallest sample that allows a threshold for this rate: the smallest n with (n + 1) · rate ≥ 1."""
    return math.ceil(_without_rounding_error(1 / false_reject_rate)) - 1


def calibrate(
    scores: Sequence[float] | NDArray[np.float64],
    false_reject_rate: float = 0.05,
    confidence: float = 0.95,
    *,
    review_rate: float | None = None,
    groups: Sequence[int] | None = None,
    cross_fitted: bool = False,
    defective: NDArray[np.float64] | None = None,
) -> Calibration:
    """Choose the threshold that rejects at most the requested share of good parts, by split conformal prediction.

    Take n scores of good parts that were not used in training, and k = ⌈(n + 1)(1 - rate)⌉. A new good part scores
    above the k-th smallest score with a probability of at most the rate, for any distribution of scores, as long as
    old and new parts are exchangeable (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-Free Predictive
    Inference for Regression", JASA 113 (2018), section 2.2; Vovk, Gammerman & Shafer, "Algorithmic Learning in a
    Random World", 2005). Given this sample, the rejected share follows Beta(n + 1 - k, k) (Vovk, "Conditional Validity
    of Inductive Conformal Predictors", ACML 2012, section 3). The result has its mean and central interval. A score
    that equals the threshold is `ng`, so the threshold is the next float64 above the k-th smallest score.

    Several images of one part or lot carry less information than the same number of parts. With groups, the interval
    is that of the number of independent parts that the sample is worth, with the same mean; see
    `effective_sample_size`. It is conservative: never narrower than without groups.

    Scores of detectors that were fitted without the fold of the part depend on each other, and the detector in use is
    another one, fitted to all parts. The rate stays about the same (Vovk, "Cross-Conformal Predictors", 2015), but the
    rejected share varies more than the Beta distribution says. The interval is then that of `CROSS_FITTED_WORTH` times
    as many parts.

    With defective parts, the threshold may be higher: k is halfway between the value above and the largest one that
    catches as many of them. So it rejects fewer good parts, and no more of these defective parts are missed.

    Args:
        scores: of n good parts, float64, finite, each by a detector that was not fitted to the part.
        false_reject_rate: the requested share, above 0 and below 1.
        confidence: of the interval, above 0 and below 1.
        review_rate: the share that may be `ng` or `review`, above the false-reject rate and below 1. The review
            threshold is chosen by the same rule. None for no review.
        groups: the part or lot of each score; None if all parts are independent.
        cross_fitted: whether the scores come from detectors that were fitted without the fold of the part.
        defective: float64, finite, the scores of m ≥ 1 defective parts that choose the threshold, too; None for none.

    Raises:
        SampleTooSmall: k is above n; the message says how many parts are needed.
        ValueError: a score is not finite, or a rate is out of range.
    """
    _check_rates(false_reject_rate, confidence, review_rate)
    ascending = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(ascending).all():
        raise ValueError("a score of a good part is not finite: the model cannot be calibrated")
    effective = float(ascending.size) if groups is None else effective_sample_size(groups)
    if cross_fitted:
        effective = max(CROSS_FITTED_WORTH * effective, 1.0)
    rank = _rank(ascending, false_reject_rate)
    if defective is not None:
        rank = (rank + _highest_rank(ascending, rank, defective)) // 2
    quantile = _quantile(ascending, rank, effective, confidence)
    review = None
    if review_rate is not None:
        review_quantile = _quantile(ascending, _rank(ascending, review_rate), effective, confidence)
        review = ReviewBand(
            threshold=review_quantile.threshold,
            rate=review_rate,
            expected_rate=review_quantile.expected_rate,
            confidence_interval=review_quantile.interval,
        )
    return Calibration(
        threshold=quantile.threshold,
        percentile=100 * (1 - false_reject_rate if defective is None else rank / (ascending.size + 1)),
        false_reject_rate=false_reject_rate,
        expected_false_reject_rate=quantile.expected_rate,
        confidence_interval=quantile.interval,
        confidence=confidence,
        sample_size=ascending.size,
        groups=None if groups is None else len(set(groups)),
        effective_sample_size=effective if effective < ascending.size else None,
        defective=None if defective is None else defective.size,
        review=review,
    )


def effective_sample_size(groups: Sequence[int]) -> float:
    """Return the number of independent parts that N grouped images are equivalent to: N² / Σ (size of each group)².

    This is Kish's effective sample size (Kish, "Survey Sampling", Wiley 1965, sections 5.4 and 8.2) with the design
    effect 1 + (size - 1) · correlation for the correlation 1, that is, if all images of a group are worth only one. It
    is a conservative estimate: N if every image is its own group, the number of groups if all have the same size.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _check_rates(false_reject_rate: float, confidence: float, review_rate: float | None) -> None:
    if not 0 < false_reject_rate < 1 or not 0 < confidence < 1:
        raise ValueError("the false-reject rate and the confidence must be between 0 and 1")
    if review_rate is not None and not false_reject_rate < review_rate < 1:
        raise ValueError(
            f"the review rate must be between the false-reject rate, {false_reject_rate:g}, and 1, "
            f"not {review_rate:g}: it is the share of good parts that may be rejected or reviewed"
        )


@dataclass(frozen=True)
class _Quantile:
    threshold: float
    expected_rate: float
    interval: tuple[float, float]


def _rank(ascending: NDArray[np.float64], rate: float) -> int:
    """Return k: the threshold for this rate is just above the k-th smallest score."""
    n = ascending.size
    k = math.ceil(_without_rounding_error((n + 1) * (1 - rate)))
    if k > n:
        raise SampleTooSmall(
            f"{n} good parts are too few for a false-reject rate of {rate:g}: "
            f"at least {required_sample_size(rate)} held-out good parts are needed"
        )
    return max(k, 1)


def _highest_rank(ascending: NDArray[np.float64], rank: int, defective: NDArray[np.float64]) -> int:
    """Return the largest k that catches as many defective parts as this one."""
    caught = defective[defective >= _above(ascending, rank)]
    return rank if caught.size == 0 else int(np.searchsorted(ascending, caught.min()))


def _above(ascending: NDArray[np.float64], rank: int) -> float:
    return float(np.nextafter(ascending[rank - 1], np.inf))


def _quantile(ascending: NDArray[np.float64], rank: int, effective: float, confidence: float) -> _Quantile:
    """Return the threshold just above a score, of n scores that are worth `effective` independent scores."""
    expected_rate = (ascending.size + 1 - rank) / (ascending.size + 1)
    from scipy import stats  # takes a second to import, and workers do not need it

    low, high = stats.beta(*beta_parameters(expected_rate, effective)).interval(confidence)
    return _Quantile(_above(ascending, rank), expected_rate, (float(low), float(high)))


@dataclass(frozen=True)
class ExpectedRateCheck:
    """Whether new good parts are rejected as often as the calibration expects.

    Attributes:
        verdict: `broken` if the number of rejects is too unlikely, high or low; else `kept`.
        rejected: number of new good parts at or above the threshold.
        good_parts: number of new good parts.
        expected: the smallest and the largest number of rejects that the expected rate allows.
        p_value: the probability, 0 to 1, of a number at least as far from the expected one, two-sided.
        summary: one sentence for the user.
    """

    verdict: Literal["kept", "broken"]
    rejected: int
    good_parts: int
    expected: tuple[int, int]
    p_value: float
    summary: str


def check_expected_rate(
    calibration: Calibration, rejected: int, good_parts: int, groups: Sequence[int] | None = None
) -> ExpectedRateCheck:
    """Compare the number of rejects among new good parts with the expected false-reject rate.

    The rejected share follows Beta(n + 1 - k, k), see `calibrate`. So the rejects among m new good parts follow the
    Beta-binomial distribution of m, n + 1 - k and k, as long as the new parts are like those of the calibration. This
    allows for chance in both samples. The verdict has the confidence of the calibration. If the new parts come in
    groups, m is the number of independent parts that they are worth, and the rejects are scaled to it.

    Args:
        calibration: of the threshold.
        rejected: number of new good parts at or above the threshold.
        good_parts: number of new good parts, at least 1.
        groups: the part or lot of each new part; None if all are independent.

    Raises:
        ValueError: the counts are impossible.
    """
    if good_parts < 1 or not 0 <= rejected <= good_parts:
        raise ValueError(f"{rejected} rejects of {good_parts} good parts are impossible")
    effective = good_parts
    if groups is not None:
        effective = max(1, math.floor(_without_rounding_error(effective_sample_size(groups))))
    shape = beta_parameters(
        calibration.expected_false_reject_rate, calibration.effective_sample_size or calibration.sample_size
    )
    from scipy import stats  # takes a second to import, and workers do not need it

    probabilities = stats.betabinom.pmf(np.arange(effective + 1), effective, *shape)
    at_most, at_least = np.cumsum(probabilities), np.cumsum(probabilities[::-1])[::-1]
    p_values = np.minimum(1, 2 * np.minimum(at_most, at_least))
    p_value = float(p_values[round(rejected * effective / good_parts)])
    likely = np.flatnonzero(p_values >= 1 - calibration.confidence)
    expected = math.floor(likely[0] * good_parts / effective), math.ceil(likely[-1] * good_parts / effective)
    verdict: Literal["kept", "broken"] = "kept" if p_value >= 1 - calibration.confidence else "broken"
    summary = (
        f"{rejected} of {good_parts} good parts are rejected ({rejected / good_parts:.1%}); the expected rate of "
        f"{calibration.expected_false_reject_rate:.1%} allows {expected[0]} to {expected[1]}, "
        f"with {calibration.confidence:.0%} confidence"
    )
    return ExpectedRateCheck(verdict, rejected, good_parts, expected, p_value, summary)


def _without_rounding_error(value: float) -> float:
    """Remove the rounding error of float64 arithmetic: 19.000000000000004 becomes 19."""
    return round(value, 9)
