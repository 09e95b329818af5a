"""The upper confidence bound of a share that was measured on a sample."""

from core import beta_distribution

CONFIDENCE = 0.95
_BISECTIONS = 60


def upper_confidence_bound(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper confidence bound of a share, 0 to 1.

    With this confidence the true share is not above the bound. The bound is the share at which a sample has `count` or
    fewer with a probability of 1 - confidence (Clopper & Pearson, "The Use of Confidence or Fiducial Limits Illustrated
    in the Case of the Binomial", Biometrika 26 (1934)). It is exact, so never too small, for a random sample.

    Args:
        count: how many of the sample have the property, 0 to `of`.
        of: size of the sample. For an empty sample the bound is 1.
        confidence: above 0 and below 1.
    """
    if count >= of:
        return 1.0
    low, high = count / of, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if binomial_cdf(count, of, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def binomial_cdf(count: int, of: int, share: float) -> float:
    """Return the probability of `count` or fewer successes in `of` independent trials.

    It is the regularised incomplete beta function I_(1 - share)(of - count, count + 1) (DLMF 8.17.5).

    Args:
        count: below `of`.
        share: the probability of success of each trial, strictly between 0 and 1.
    """
    return beta_distribution.cdf(1 - share, of - count, count + 1)
