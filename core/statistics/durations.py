"""Durations in bins of logarithmic width, so that quantiles can be computed from numbers that are added up."""

import math
from collections.abc import Mapping

GROWTH = 1.1
"""The ratio of the edges of a bin. A quantile is the middle of its bin, so it is at most 5 % off."""

BIN_SQL = f"""CASE WHEN status = 'completed' THEN floor(
    ln(greatest(date_part('epoch', finished_at - created_at) * 1000, 1)) / {math.log(GROWTH)!r}
)::smallint END"""
"""The bin of an inspection's time to verdict; null without a verdict. A millisecond is the shortest time."""


def milliseconds(number: int) -> float:
    """Return the middle of a bin, in milliseconds."""
    return math.sqrt(GROWTH) * GROWTH**number


def quantile(bins: Mapping[int, int], share: float) -> float | None:
    """Return the quantile of durations in milliseconds, at most 5 % off; None without durations.

    It is the smallest duration that at least this share of the durations do not exceed.

    Args:
        bins: how many durations are in each bin, by its number.
        share: above 0, at most 1.
    """
    rank = math.ceil(share * sum(bins.values()))
    below = 0
    for number in sorted(bins):
        below += bins[number]
        if below >= rank > 0:
            return milliseconds(number)
    return None
