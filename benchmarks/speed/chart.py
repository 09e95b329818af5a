"""The chart of `make bench`: bars for the ratios with their spread, and latencies on a logarithmic axis."""

import math
from typing import Any, Final

from benchmarks.speed.results import LINEWATCH, LoadedLatency, Results
from core.html.rendering import render

_LEFT: Final = 190
_RIGHT: Final = 700
_ROW: Final = 26
_TOP: Final = 40


def draw(results: Results) -> str:
    """Draw the ratios of the first cell, and all latencies: a line from p50 to p99."""
    ratios = sorted(results.cells[0].ratios().items(), key=lambda item: -item[1].median)
    highest = max(1.0, *(spread.high for _, spread in ratios))
    scale = (_RIGHT - _LEFT) / highest
    bars = [
        {
            "name": name,
            "y": _TOP + row * _ROW,
            "width": spread.median * scale,
            "low": _LEFT + spread.low * scale,
            "high": _LEFT + spread.high * scale,
            "label": f"{spread.median:.2f}",
            "is_own": name == LINEWATCH,
        }
        for row, (name, spread) in enumerate(ratios)
    ]
    latency_top = _TOP + len(bars) * _ROW + 50
    axis = _LogAxis([seconds for row in results.latencies for seconds in (row.latency.p50, row.latency.p99)])
    lines = [_line(row, latency_top + index * _ROW * 0.7, axis) for index, row in enumerate(results.latencies)]
    bottom = latency_top + len(lines) * _ROW * 0.7
    return render(
        "speed.svg",
        package="benchmarks",
        cell=results.cells[0].name,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bars=bars,
        bars_bottom=_TOP + len(bars) * _ROW,
        one=_LEFT + scale,
        lines=lines,
        lines_top=latency_top,
        ticks=[{"x": axis.at(tick), "label": _duration(tick)} for tick in axis.ticks()],
        bottom=bottom,
        height=bottom + 30,
    )


def _line(row: LoadedLatency, y: float, axis: "_LogAxis") -> dict[str, Any]:
    return {
        "name": f"{row.contender.partition(',')[0]}, {row.load.removesuffix(' of capacity')}",
        "y": y,
        "p50": axis.at(row.latency.p50),
        "p99": axis.at(row.latency.p99),
        "label": f"{_duration(row.latency.p50)} / {_duration(row.latency.p99)}",
        "is_own": row.contender == LINEWATCH,
    }


class _LogAxis:
    """An axis over whole powers of ten that contain all values. The values are above 0."""

    def __init__(self, values: list[float]) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)

    def at(self, value: float) -> float:
        """Return the coordinate of a value."""
        return _LEFT + (math.log10(value) - self._low) / (self._high - self._low) * (_RIGHT - _LEFT)

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        return [10.0**power for power in range(self._low, self._high + 1)]


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
