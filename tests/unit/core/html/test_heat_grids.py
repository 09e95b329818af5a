"""Heat grids have a number in each cell, can be read in grey, and escape their texts."""

import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from core.html.heat_grids import HeatCell, HeatGrid, contrast, heat_grids

Colour = tuple[int, int, int]
shares = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def grid(values: list[float]) -> HeatGrid:
    return HeatGrid("<Spots>", "size", ["<b>"] * len(values), [("3 px", [HeatCell(each, "<note>") for each in values])])


def cells(values: list[float]) -> list[ET.Element]:
    return list(ET.fromstring(heat_grids([grid(values)])).iter("td"))  # noqa: S314 - rendered by us


def colours(cell: ET.Element) -> tuple[Colour, Colour]:
    background, ink = (
        tuple(map(int, numbers)) for numbers in re.findall(r"rgb\((\d+), (\d+), (\d+)\)", cell.attrib["style"])
    )
    return background, ink  # type: ignore[return-value]


@given(shares)
def test_each_cell_has_its_number_and_readable_text(values: list[float]) -> None:
    for value, cell in zip(values, cells(values), strict=True):
        assert cell.text == f"{100 * value:.0f} %"
        assert contrast(*colours(cell)) >= 4.5
        assert cell.attrib["title"] == "<note>"


@given(shares)
def test_a_higher_share_is_darker_in_grey_too(values: list[float]) -> None:
    white = (255, 255, 255)
    darkness = [contrast(white, colours(cell)[0]) for cell in cells(sorted(values))]
    assert darkness == sorted(darkness)


def test_the_contrast_of_black_and_white_is_21() -> None:
    assert round(contrast((0, 0, 0), (255, 255, 255)), 6) == 21
