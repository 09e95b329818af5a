"""The chart of what a model version can find, for the training report: one grid of size by contrast for each kind."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from core.html.heat_grids import HeatCell, HeatGrid, heat_grids
from core.vision.bundle.detectability import Detectability, DetectabilityCell

_TITLES: Final = {
    "spot": "Spots",
    "scratch": "Scratches, by width",
    "stain": "Stains",
    "patch": "Pasted patches",
    "blur": "Blurred areas",
    "missing": "Missing areas",
}


def detectability_chart(detectability: Detectability) -> Markup:
    """Draw the share of synthetic defects that is caught, by kind, size and contrast."""
    kinds = dict.fromkeys(cell.kind for cell in detectability.cells)
    return heat_grids([_grid(kind, [cell for cell in detectability.cells if cell.kind == kind]) for kind in kinds])


def _grid(kind: str, cells: Sequence[DetectabilityCell]) -> HeatGrid:
    by_place = {(cell.size_px, cell.contrast_percent): cell for cell in cells}
    sizes = sorted({cell.size_px for cell in cells})
    contrasts = sorted({cell.contrast_percent for cell in cells}, key=lambda contrast: contrast or 0.0)
    rows = [
        (f"{size:.4g} px", [_cell(by_place[size, contrast]) for contrast in contrasts if (size, contrast) in by_place])
        for size in sizes
    ]
    if contrasts == [None]:
        return HeatGrid(_TITLES.get(kind, kind), "size", ["caught"], rows)
    columns = [f"{contrast:.3g} %" if contrast is not None else "–" for contrast in contrasts]
    return HeatGrid(_TITLES.get(kind, kind), "size, contrast", columns, rows)


def _cell(cell: DetectabilityCell) -> HeatCell:
    low, high = cell.interval
    note = (
        f"{cell.caught} of {cell.count} {cell.describe()} caught, 95 % interval {100 * low:.0f} % to "
        f"{100 * high:.0f} %; {100 * cell.size_share:.3g} % of the side of the part"
    )
    return HeatCell(cell.share, note)
