"""The upper confidence bound of a share that was measured on a sample."""

import math

CONFIDENCE = 0.95
_TINY = 1e-300
_PRECISION = 1e-14
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

    It is the regularised incomplete beta function I_(1 - share)(of - count, count + 1) (DLMF 8.17.5). It is computed
    here because the api does not import scipy.

    Args:
        count: below `of`.
        share: the probability of success of each trial, strictly between 0 and 1.
    """
    a, b, x = float(of - count), float(count + 1), 1 - share
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # x^a (1 - x)^b / B(a, b)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges quickly; elsewhere by symmetry, DLMF 8.17.4
        return front * _continued_fraction(a, b, x) / a
    return 1 - front * _continued_fraction(b, a, 1 - x) / b


def _continued_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, DLMF 8.17.22, by the modified Lentz method.

    It needs about sqrt(max(a, b)) terms.
    """
    d = 1 / _not_zero(1 - (a + b) * x / (a + 1))
    c, value = 1.0, d
    for m in range(1, 10 + 10 * math.isqrt(int(max(a, b)))):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
