"""Charts as inline SVG for pages. This module computes the coordinates; `templates/charts.svg` is the markup."""

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
    """The scores of one of several histograms, which are drawn one below the other.

    Attributes:
        label: what was scored.
        kind: the CSS class of its colour: `held-out`, `good` or `defective`.
        scores: float64, finite.
    """

    label: str
    kind: str
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class CountedHistogram:
    """A histogram whose scores are already counted.

    Attributes:
        kind: the CSS class of its colour.
        bins: the counts of bins of equal width.
    """

    label: str
    kind: str
    note: str
    bins: Sequence[int]


@dataclass(frozen=True)
class Mark:
    """A vertical line across all histograms, such as a threshold."""

    label: str
    value: float


def histograms(strips: Sequence[Strip], marks: Sequence[Mark]) -> Markup:
    """Draw histograms of scores on a common axis, with marks. The last bin also counts the scores beyond the axis.

    Args:
        strips: at least one that is not empty.
        marks: at least one.
    """
    low, high = _range(strips, marks)
    axis = _Axis(low, high, _LEFT, _WIDTH - _RIGHT)
    beyond = any(bool((strip.scores > high).any()) for strip in strips)
    return _draw([_count(strip, axis) for strip in strips], marks, axis, beyond=beyond)


def counted_histograms(strips: Sequence[CountedHistogram], mark: Mark, *, low: float, high: float) -> Markup:
    """Draw counted histograms on a common axis. The last bin of each also counts the scores beyond the axis.

    Args:
        strips: at least one.
        low, high: where the first bin begins and the last bin ends.
    """
    return _draw(strips, [mark], _Axis(low, high, _LEFT, _WIDTH - _RIGHT), beyond=True)


def curves(lines: Sequence[tuple[str, str, Sequence[float]]], *, marked: int, axis: str) -> Markup:
    """Draw values by epoch as lines.

    Args:
        lines: for each line, its label, the CSS class of its colour, and a finite value for each epoch.
        marked: the chosen epoch, counted from 1.
        axis: the label of the value axis.
    """
    all_values = [value for _, _, values in lines for value in values]
    count = max(len(values) for _, _, values in lines)
    top, bottom = 18, 200
    x_axis = _Axis(1, max(count, 2), _LEFT, _WIDTH - _RIGHT - 90)
    low = min(0.0, *all_values)
    y_axis = _Axis(low, max(*all_values, low + 1e-12), bottom, top)
    label_heights = _spread([y_axis.at(values[-1]) for _, _, values in lines])
    drawn = [
        {
            "label": label,
            "kind": kind,
            "points": [(x_axis.at(index + 1), y_axis.at(value)) for index, value in enumerate(values)],
            "label_y": label_y,
        }
        for (label, kind, values), label_y in zip(lines, label_heights, strict=True)
    ]
    return fragment(
        "charts.svg",
        kind="curves",
        title=f"{axis} by epoch",
        axis=axis,
        width=_WIDTH,
        left=_LEFT,
        right=x_axis.at(x_axis.high),
        top=top,
        bottom=bottom,
        ticks=[{"y": y_axis.at(value), "value": value} for value in y_axis.ticks(4)],
        marked={"x": x_axis.at(marked), "epoch": marked},
        lines=drawn,
        epochs=[{"x": x_axis.at(number), "number": number} for number in sorted({1, count})],
        middle=x_axis.at((1 + max(count, 2)) / 2),
    )


def _draw(strips: Sequence[CountedHistogram], marks: Sequence[Mark], axis: "_Axis", *, beyond: bool) -> Markup:
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
        """Return the coordinate of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, target: int) -> list[float]:
        """Return about `target` round values within the range."""
        raw = (self.high - self.low) / target
        unit = 10.0 ** np.floor(np.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
        first, last = int(np.ceil(self.low / step - 1e-9)), int(np.floor(self.high / step + 1e-9))
        return [float(number * step) for number in range(first, last + 1)]


def _range(strips: Sequence[Strip], marks: Sequence[Mark]) -> tuple[float, float]:
    """Return the range of the axis: from the lowest score or mark to about the 95th percentile of the scores.

    It always includes the marks. It ends at most four times as far from the lowest score as the highest mark does, so
    that outliers do not squeeze the other scores together.
    """
    scores = np.concatenate([strip.scores for strip in strips])
    threshold = max(mark.value for mark in marks)
    low = min(float(scores.min()), min(mark.value for mark in marks))
    far = max(float(np.quantile(strip.scores, 0.95)) for strip in strips if strip.scores.size)
    if threshold > low:
        far = min(max(far, low + 1.6 * (threshold - low)), low + 4 * (threshold - low))
    high = max(threshold, min(float(scores.max()), far))
    margin = 0.04 * (high - low) or max(abs(high), 1e-9) * 0.1
    return (max(0.0, low - margin) if low >= 0 else low - margin), high + margin


def _count(strip: Strip, axis: _Axis) -> CountedHistogram:
    edges = np.linspace(axis.low, axis.high, _BINS + 1)
    counts, _ = np.histogram(np.clip(strip.scores, axis.low, axis.high), edges)
    return CountedHistogram(strip.label, strip.kind, f"{strip.scores.size} parts", counts.tolist())


def _strip(strip: CountedHistogram, axis: _Axis, top: float) -> dict[str, Any]:
    """Compute the bars of a histogram. The tallest fills the height of the strip."""
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
    """Compute the lines of the marks and their labels.

    The label of the last mark starts at its line and the others end at theirs, so that labels do not overlap. If the
    last one has no room at the right edge, it ends at its line too, and is moved up.
    """
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


def _spread(heights: list[float], min_distance: float = 15) -> list[float]:
    """Move the heights of labels apart so that no two labels overlap."""
    placed = dict.fromkeys(range(len(heights)), 0.0)
    previous = -np.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        previous = max(heights[index], previous + min_distance)
        placed[index] = previous
    return list(placed.values())
