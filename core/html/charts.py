"""Charts as inline SVG for pages: the numbers here, the markup in `templates/charts.svg`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from core.html.rendering import fragment

_WIDTH = 720
_LEFT, _RIGHT = 150, 20
_BINS = 60
_STRIP, _GAP = 64, 26
_TOP = 44
_HISTOGRAMS = "Histograms of the scores with the threshold"


@dataclass(frozen=True)
class Strip:
    """One histogram among several above each other.

    Attributes:
        label: what was scored.
        kind: its colour's class: `held-out`, `good` or `defective`.
        scores: float64, finite.
    """

    label: str
    kind: str
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """One histogram that has been counted: its colour's class is `before` or `after`, its bins are of one width."""

    label: str
    kind: str
    note: str
    bins: Sequence[int]


@dataclass(frozen=True)
class Mark:
    """A vertical line across the strips."""

    label: str
    value: float


def histograms(strips: Sequence[Strip], marks: Sequence[Mark]) -> Markup:
    """Histograms of scores on one axis, with thresholds marked. Scores beyond the axis are counted in its last bin.

    Args:
        strips: at least one that is not empty.
        marks: at least one.
    """
    low, high = _range(strips, marks)
    axis = _Axis(low, high, _LEFT, _WIDTH - _RIGHT)
    beyond = any(bool((strip.scores > high).any()) for strip in strips)
    return _draw([_counted(strip, axis) for strip in strips], marks, axis, beyond=beyond)


def counted_histograms(strips: Sequence[Counted], mark: Mark, *, low: float, high: float) -> Markup:
    """Histograms that are already counted, on one axis. The last bin of each holds all that lies beyond.

    Args:
        strips: at least one.
        low, high: where the first bin begins and the last one ends.
    """
    return _draw(strips, [mark], _Axis(low, high, _LEFT, _WIDTH - _RIGHT), beyond=True)


def curves(lines: Sequence[tuple[str, str, Sequence[float]]], *, marked: int, axis: str) -> Markup:
    """Values by epoch, as lines.

    Args:
        lines: label, colour's class and values of each, one for each epoch, finite.
        marked: the epoch, counted from 1, that was chosen.
        axis: what the values are.
    """
    values = [value for _, _, some in lines for value in some]
    count = max(len(some) for _, _, some in lines)
    top, bottom = 18, 200
    across = _Axis(1, max(count, 2), _LEFT, _WIDTH - _RIGHT - 90)
    low = min(0.0, *values)
    up = _Axis(low, max(*values, low + 1e-12), bottom, top)
    heights = _apart([up.at(some[-1]) for _, _, some in lines])
    drawn = [
        {
            "label": label,
            "kind": kind,
            "points": [(across.at(index + 1), up.at(value)) for index, value in enumerate(some)],
            "label_y": height,
        }
        for (label, kind, some), height in zip(lines, heights, strict=True)
    ]
    return fragment(
        "charts.svg",
        kind="curves",
        title=f"{axis} by epoch",
        axis=axis,
        width=_WIDTH,
        left=_LEFT,
        right=across.at(across.high),
        top=top,
        bottom=bottom,
        ticks=[{"y": up.at(value), "value": value} for value in up.ticks(4)],
        marked={"x": across.at(marked), "epoch": marked},
        lines=drawn,
        epochs=[{"x": across.at(number), "number": number} for number in sorted({1, count})],
        middle=across.at((1 + max(count, 2)) / 2),
    )


def _draw(strips: Sequence[Counted], marks: Sequence[Mark], axis: "_Axis", *, beyond: bool) -> Markup:
    bottom = _TOP + len(strips) * (_STRIP + _GAP) - _GAP
    return fragment(
        "charts.svg",
        kind="histograms",
        title=_HISTOGRAMS,
        width=_WIDTH,
        left=axis.start,
        right=axis.end,
        bottom=bottom,
        strips=[_strip(strip, axis, _TOP + row * (_STRIP + _GAP)) for row, strip in enumerate(strips)],
        marks=_marks(marks, axis, _TOP - 8),
        ticks=[{"x": axis.at(value), "value": value} for value in axis.ticks(6)],
        beyond=beyond,
    )


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value lies, in the chart's units."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round values within the range."""
        raw = (self.high - self.low) / about
        unit = 10.0 ** np.floor(np.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
        first, last = int(np.ceil(self.low / step - 1e-9)), int(np.floor(self.high / step + 1e-9))
        return [float(number * step) for number in range(first, last + 1)]


def _range(strips: Sequence[Strip], marks: Sequence[Mark]) -> tuple[float, float]:
    """From the lowest score to where the good parts and the marks end, and most defective parts as well."""
    scores = np.concatenate([strip.scores for strip in strips])
    threshold = max(mark.value for mark in marks)
    low = min(float(scores.min()), min(mark.value for mark in marks))
    far = max(float(np.quantile(strip.scores, 0.95)) for strip in strips if strip.scores.size)
    if threshold > low:
        far = min(max(far, low + 1.6 * (threshold - low)), low + 4 * (threshold - low))
    high = max(threshold, min(float(scores.max()), far))
    margin = 0.04 * (high - low) or max(abs(high), 1e-9) * 0.1
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _counted(strip: Strip, axis: _Axis) -> Counted:
    edges = np.linspace(axis.low, axis.high, _BINS + 1)
    counts, _ = np.histogram(np.clip(strip.scores, axis.low, axis.high), edges)
    return Counted(strip.label, strip.kind, f"{strip.scores.size} parts", counts.tolist())


def _strip(strip: Counted, axis: _Axis, top: float) -> dict[str, Any]:
    """Where the bars of a histogram lie; the tallest fills the strip."""
    base = top + _STRIP
    tallest = max(*strip.bins, 1)
    width = (axis.end - axis.start) / len(strip.bins)
    bars = [
        {
            "x": axis.start + index * width + 0.5,
            "y": base - count / tallest * _STRIP,
            "width": width - 1,
            "height": count / tallest * _STRIP,
        }
        for index, count in enumerate(strip.bins)
        if count
    ]
    return {"label": strip.label, "note": strip.note, "kind": strip.kind, "base": base, "bars": bars}


def _marks(marks: Sequence[Mark], axis: _Axis, top: float) -> list[dict[str, Any]]:
    """Lines with their labels: they end at the first mark, and begin at the last or lie higher, so that none meet."""
    placed = []
    ordered = sorted(marks, key=lambda mark: mark.value)
    for mark in ordered:
        x = axis.at(mark.value)
        last = mark is ordered[-1]
        anchor, label_x = ("start", x - 4) if last else ("end", x + 4)
        label_y = top - 6
        if last and x > axis.end - 140:
            anchor, label_x = "end", x + 4
            label_y -= 16
        placed.append(
            {"x": x, "top": top, "label_x": label_x, "label_y": label_y, "anchor": anchor}
            | {"label": mark.label, "value": mark.value}
        )
    return placed


def _apart(heights: list[float], least: float = 15) -> list[float]:
    """Heights of labels, moved so that none lies on another."""
    placed = dict.fromkeys(range(len(heights)), 0.0)
    above = -np.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        above = max(heights[index], above + least)
        placed[index] = above
    return list(placed.values())
