"""How large a share may be, given a sample: what a measured share is worth."""

import math

CONFIDENCE = 0.95
_TINY = 1e-300
_PRECISE = 1e-14
_HALVINGS = 60


def upper_bound(count: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The one-sided upper confidence bound of a share, 0 to 1: with so much confidence the true share is not above it.

    It is the share at which so few, or fewer, would be seen with a probability of 1 - confidence only (Clopper &
    Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", Biometrika 26 (1934)).
    Exact, so never too small, as long as the sample is drawn at random.

    Args:
        count: how many of the sample have the trait, 0 to `of`.
        of: the sample's size; of an empty one nothing is known, so the bound is 1.
        confidence: above 0 and below 1.
    """
    if count >= of:
        return 1.0
    low, high = count / of, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_most(count, of, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def at_most(count: int, of: int, share: float) -> float:
    """The probability of `count` or fewer among `of` independent trials, each of which succeeds with this probability.

    It is the regularised incomplete beta function I_(1 - share)(of - count, count + 1) (DLMF 8.17.5), for a count
    below `of` and a share strictly between 0 and 1.
    """
    a, b, x = float(of - count), float(count + 1), 1 - share
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # x^a (1 - x)^b / B(a, b)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges quickly; else by symmetry, DLMF 8.17.4
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, DLMF 8.17.22, by the modified method of Lentz.

    About sqrt(max(a, b)) terms are needed.
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
        if abs(c * d - 1) < _PRECISE:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
