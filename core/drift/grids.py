"""The bins in which scores and measurements are counted: fixed, so that the counts of any days can be added up.

A bin is a whole number; higher values have the same bin or a higher one. PostgreSQL assigns the bins (`Grid.bin_sql`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Measure = Literal["score", "brightness", "contrast", "sharpness"]
INPUTS: Final[tuple[Measure, ...]] = ("brightness", "contrast", "sharpness")

_SMALLEST = 1e-12


@dataclass(frozen=True)
class LogGrid:
    """Bins with edges at 1e-12 times powers of `1 + step`, mirrored for negative values. Smaller values have bin 0."""

    step: float

    def bin_sql(self, value: str) -> str:
        """Return an SQL expression for the bin of a finite float8 expression."""
        # The difference of logarithms, because the quotient of a large number would overflow.
        exponent = f"(ln(abs({value})) - {math.log(_SMALLEST)!r}) / {math.log1p(self.step)!r}"
        positive = f"CAST(floor({exponent}) AS int) + 1"
        return f"CASE WHEN abs({value}) < {_SMALLEST!r} THEN 0 ELSE CAST(sign({value}) AS int) * ({positive}) END"

    def middle(self, bin_: int) -> float:
        """Return the geometric mean of the edges of a bin; 0 for bin 0."""
        if bin_ == 0:
            return 0.0
        size = math.log(_SMALLEST) + (abs(bin_) - 0.5) * math.log1p(self.step)
        return math.copysign(math.exp(min(size, _LARGEST_EXPONENT)), bin_)

    def upper_edge(self, bin_: int) -> float:
        """Return the highest value of a bin."""
        edge = bin_ if bin_ >= 0 else bin_ + 1
        size = math.log(_SMALLEST) + abs(edge) * math.log1p(self.step)
        return math.copysign(math.exp(min(size, _LARGEST_EXPONENT)), bin_)


_LARGEST_EXPONENT = 709.0  # of float64


@dataclass(frozen=True)
class LinearGrid:
    """Bins of equal width; bin 0 begins at 0."""

    step: float

    def bin_sql(self, value: str) -> str:
        """Return an SQL expression for the bin of a finite float8 expression."""
        return f"CAST(floor({value} / {self.step!r}) AS int)"

    def middle(self, bin_: int) -> float:
        return (bin_ + 0.5) * self.step

    def upper_edge(self, bin_: int) -> float:
        """Return the end of a bin, which belongs to the next one."""
        return (bin_ + 1) * self.step


Grid = LogGrid | LinearGrid

GRIDS: Final[Mapping[Measure, Grid]] = {
    "score": LogGrid(0.01),
    "brightness": LinearGrid(1.0),
    "contrast": LinearGrid(1.0),
    "sharpness": LogGrid(0.05),
}
"""Scores of good parts often vary by a tenth only; of brightness and contrast, a grey level of 255 is fine enough."""
