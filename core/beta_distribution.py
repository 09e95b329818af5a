"""The Beta distribution without scipy, which the api does not import."""

import math

_TINY = 1e-300
_PRECISION = 1e-14


def cdf(x: float, a: float, b: float) -> float:
    """Return the probability of a value of at most x: the regularised incomplete beta function I_x(a, b).

    DLMF 8.17: https://dlmf.nist.gov/8.17

    Args:
        x: any number; the values of the distribution are from 0 to 1.
        a, b: the parameters, above 0.
    """
    if not 0 < x < 1:
        return float(x >= 1)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # x^a (1 - x)^b / B(a, b)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges quickly; elsewhere by symmetry, DLMF 8.17.4
        return front * _continued_fraction(a, b, x) / a
    return 1 - front * _continued_fraction(b, a, 1 - x) / b


def quantile(probability: float, a: float, b: float) -> float:
    """Return the value that the distribution does not exceed with this probability, by bisection.

    Args:
        probability: above 0 and below 1.
        a, b: the parameters, above 0.
    """
    low, high = 0.0, 1.0
    while high - low > 2 * math.ulp(high) and high > _TINY:
        middle = (low + high) / 2
        if cdf(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return high


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
