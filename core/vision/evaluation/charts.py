"""Charts as inline SVG: no scripts, no fonts of their own, colours by the classes of the page they stand in."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

_WIDTH = 720
_LEFT, _RIGHT = 150, 20
_BINS = 60
_STRIP, _GAP = 64, 26


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


def histograms(strips: Sequence[Strip], marks: Sequence[Mark]) -> str:
    """Histograms of scores on one axis, with thresholds marked. Scores beyond the axis are counted in its last bin.

    Args:
        strips: at least one that is not empty.
        marks: at least one.
    """
    low, high = _range(strips, marks)
    place = _Axis(low, high, _LEFT, _WIDTH - _RIGHT)
    top = 44
    bottom = top + len(strips) * (_STRIP + _GAP) - _GAP
    parts = [_strip(_counted(strip, place), place, top + row * (_STRIP + _GAP)) for row, strip in enumerate(strips)]
    parts.extend(_marks(marks, place, top - 8, bottom))
    parts.append(_ticks(place, bottom))
    if any((strip.scores > high).any() for strip in strips):
        parts.append(_beyond(bottom))
    return _svg(bottom + 40, "Histograms of the scores with the threshold", parts)


def counted_histograms(strips: Sequence[Counted], mark: Mark, *, low: float, high: float) -> str:
    """Histograms that others have counted, on one axis. The last bin of each holds all that lies beyond.

    Args:
        strips: at least one.
        low, high: where the first bin begins and the last one ends.
    """
    place = _Axis(low, high, _LEFT, _WIDTH - _RIGHT)
    top = 44
    bottom = top + len(strips) * (_STRIP + _GAP) - _GAP
    parts = [_strip(strip, place, top + row * (_STRIP + _GAP)) for row, strip in enumerate(strips)]
    parts.extend(_marks([mark], place, top - 8, bottom))
    parts.append(_ticks(place, bottom))
    parts.append(_beyond(bottom))
    return _svg(bottom + 40, "Histograms of the scores with the threshold", parts)


def curves(lines: Sequence[tuple[str, str, Sequence[float]]], *, marked: int, axis: str) -> str:
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
    parts = [f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{across.at(across.high):.1f}" y2="{bottom}"/>']
    for value in up.ticks(4):
        y = up.at(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{across.at(across.high):.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    x = across.at(marked)
    parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
    parts.append(f'<text x="{x:.1f}" y="{top - 6}" text-anchor="middle">epoch {marked}</text>')
    ends = _apart([up.at(some[-1]) for _, _, some in lines])
    for (label, kind, some), end in zip(lines, ends, strict=True):
        points = " ".join(f"{across.at(index + 1):.1f},{up.at(value):.1f}" for index, value in enumerate(some))
        parts.append(f'<polyline class="line {kind}" points="{points}"/>')
        right = across.at(len(some))
        parts.append(f'<circle class="{kind}" cx="{right:.1f}" cy="{up.at(some[-1]):.1f}" r="3"/>')
        parts.append(f'<text x="{right + 8:.1f}" y="{end + 4:.1f}">{escape(label)}</text>')
    parts.extend(
        f'<text x="{across.at(number):.1f}" y="{bottom + 18}" text-anchor="middle">{number}</text>'
        for number in sorted({1, count})
    )
    middle = across.at((1 + max(count, 2)) / 2)
    parts.append(f'<text class="quiet" x="{middle:.1f}" y="{bottom + 18}" text-anchor="middle">epoch</text>')
    parts.append(f'<text class="quiet" x="0" y="{top + 4}">{escape(axis)}</text>')
    return _svg(bottom + 26, f"{axis} by epoch", parts)


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


def _counted(strip: Strip, place: _Axis) -> Counted:
    edges = np.linspace(place.low, place.high, _BINS + 1)
    counts, _ = np.histogram(np.clip(strip.scores, place.low, place.high), edges)
    return Counted(strip.label, strip.kind, f"{strip.scores.size} parts", counts.tolist())


def _strip(strip: Counted, place: _Axis, top: float) -> str:
    base = top + _STRIP
    tallest = max(*strip.bins, 1)
    width = (place.end - place.start) / len(strip.bins)
    bars = "".join(
        f'<rect class="{strip.kind}" x="{place.start + index * width + 0.5:.1f}" '
        f'y="{base - count / tallest * _STRIP:.1f}" width="{width - 1:.1f}" height="{count / tallest * _STRIP:.1f}"/>'
        for index, count in enumerate(strip.bins)
        if count
    )
    return (
        f'<text x="0" y="{base - 22}">{escape(strip.label)}</text>'
        f'<text class="quiet" x="0" y="{base - 5}">{escape(strip.note)}</text>'
        f'{bars}<line class="axis" x1="{place.start}" y1="{base}" x2="{place.end}" y2="{base}"/>'
    )


def _beyond(bottom: float) -> str:
    text = "the last bin holds all scores beyond"
    return f'<text class="quiet" x="{_WIDTH - _RIGHT}" y="{bottom + 34}" text-anchor="end">{text}</text>'


def _marks(marks: Sequence[Mark], place: _Axis, top: float, bottom: float) -> list[str]:
    """Lines with their labels: they end at the first mark, and begin at the last or lie higher, so that none meet."""
    parts = []
    ordered = sorted(marks, key=lambda mark: mark.value)
    for mark in ordered:
        x = place.at(mark.value)
        last = mark is ordered[-1]
        anchor, label_x = ("start", x - 4) if last else ("end", x + 4)
        height = top - 6
        if last and x > place.end - 140:
            anchor, label_x = "end", x + 4
            height -= 16
        parts.append(f'<line class="mark" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        text = f"{escape(mark.label)} {mark.value:.4g}"
        parts.append(f'<text class="strong" x="{label_x:.1f}" y="{height:.1f}" text-anchor="{anchor}">{text}</text>')
    return parts


def _ticks(place: _Axis, bottom: float) -> str:
    return "".join(
        f'<line class="axis" x1="{place.at(value):.1f}" y1="{bottom}" x2="{place.at(value):.1f}" y2="{bottom + 4}"/>'
        f'<text x="{place.at(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:.4g}</text>'
        for value in place.ticks(6)
    )


def _apart(heights: list[float], least: float = 15) -> list[float]:
    """Heights of labels, moved so that none lies on another."""
    placed = dict.fromkeys(range(len(heights)), 0.0)
    above = -np.inf
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        above = max(heights[index], above + least)
        placed[index] = above
    return list(placed.values())


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
