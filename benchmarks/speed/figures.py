"""The figures that are computed from runs: percentiles, ratios within an alternation, and their spread."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The median of some values, the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Latency:
    """Seconds from when images were due to their verdicts: percentiles, and the largest."""

    p50: float
    p99: float
    largest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Return the percentiles of at least one value. Each is a latency that occurred, never one in between."""
        p50, p99 = np.percentile(seconds, [50, 99], method="inverted_cdf").tolist()
        return cls(p50, p99, max(seconds))


def rotated(values: Sequence[T], alternation: int) -> list[T]:
    """Return the values in the order of an alternation, so that each has each place once."""
    first = alternation % len(values)
    return [*values[first:], *values[:first]]


def ratios(alternations: Sequence[Mapping[str, float]], reference: str) -> dict[str, Spread]:
    """Divide the rates of each alternation by the reference's in the same one, and return the spreads.

    Args:
        alternations: rates by name, the same names in each.
    """
    return {name: Spread.of([rates[name] / rates[reference] for rates in alternations]) for name in alternations[0]}
