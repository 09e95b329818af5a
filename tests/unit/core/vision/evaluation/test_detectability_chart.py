"""The chart of what a model version can find."""

import xml.etree.ElementTree as ET

from core.vision.bundle.detectability import Detectability
from core.vision.evaluation.detectability_chart import detectability_chart
from tests.fixtures.detectability_records import CELLS, cell, record


def tables(detectability: Detectability) -> dict[str, list[list[str]]]:
    """Return the texts of each table by its title."""
    chart = ET.fromstring(detectability_chart(detectability))  # noqa: S314 - rendered by us
    return {
        block.findtext("h3", ""): [[each.text or "" for each in row] for row in block.iter("tr")] for block in chart
    }


def test_each_kind_is_a_grid_of_size_by_contrast() -> None:
    assert tables(record()) == {
        "Spots": [["size, contrast", "10 %", "20 %"], ["6 px", "5 %", "60 %"], ["12 px", "75 %", "95 %"]],
        "Scratches, by width": [["size, contrast", "10 %", "30 %"], ["1 px", "0 %", "40 %"]],
        "Pasted patches": [["size", "caught"], ["12 px", "20 %"], ["40 px", "100 %"]],
    }


def test_each_cell_says_how_many_were_caught() -> None:
    chart = detectability_chart(record())
    note = "19 of 20 spots of 12 px and 20 % contrast caught, 95 % interval 48 % to 98 %; 4 % of the side of the part"
    assert f'title="{note}"' in chart
    assert chart.count("<td") == len(CELLS)


def test_an_unknown_kind_and_uneven_sizes_are_shown() -> None:
    cells = [cell("<dent>", 3, 10, 1), cell("<dent>", 3, None, 1), cell("<dent>", 5, 10, 1)]
    assert list(tables(record().model_copy(update={"cells": cells}))) == ["<dent>"]
