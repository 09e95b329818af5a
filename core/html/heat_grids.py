"""Grids of shares as tables whose cells are darker the higher their share. Each cell also has its number."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from core.html.rendering import fragment

Colour = tuple[int, int, int]

# One hue whose lightness falls evenly, so that the order is visible without hues, too: ColorBrewer's Blues.
_LIGHTEST: Colour = (247, 251, 255)
_MIDDLE: Colour = (107, 174, 214)
_DARKEST: Colour = (8, 48, 107)
_INK: tuple[Colour, Colour] = ((0, 0, 0), (255, 255, 255))


@dataclass(frozen=True)
class HeatCell:
    """A cell: its share, 0 to 1, and a longer text that explains it, shown on hover."""

    share: float
    note: str


@dataclass(frozen=True)
class HeatGrid:
    """A grid of shares.

    Attributes:
        title: what the grid is about.
        corner: what the rows and columns are, such as `size, contrast`.
        columns: the heading of each column.
        rows: the heading of each row, and its cells, one for each column.
    """

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]


def heat_grids(grids: Sequence[HeatGrid]) -> Markup:
    """Render grids beside each other."""
    return fragment("heat_grids.html", grids=grids, style=_style)


def _style(share: float) -> str:
    """Return the CSS of a cell: its background, and black or white text, whichever has more contrast."""
    position = min(max(share, 0.0), 1.0)
    low, high = (_LIGHTEST, _MIDDLE) if position < 0.5 else (_MIDDLE, _DARKEST)
    fraction = 2 * position - (position >= 0.5)
    red, green, blue = (round(a + (b - a) * fraction) for a, b in zip(low, high, strict=True))
    background = (red, green, blue)
    ink = max(_INK, key=lambda colour: contrast(colour, background))
    return f"background: rgb{background}; color: rgb{ink}"


def contrast(first: Colour, second: Colour) -> float:
    """Return the contrast ratio of two sRGB colours, 1 to 21, after the W3C's WCAG 2.2."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
