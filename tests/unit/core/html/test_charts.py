"""Charts are well-formed SVG that shows all values and escapes labels."""

import xml.etree.ElementTree as ET

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.html.charts import CountedHistogram, Mark, Strip, counted_histograms, curves, histograms

SVG = "{http://www.w3.org/2000/svg}"
scores = st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=50)
labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)


def parsed(chart: str) -> ET.Element:
    return ET.fromstring(str(chart).strip().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))  # noqa: S314 - rendered by us


def texts(chart: ET.Element) -> list[str]:
    return [element.text or "" for element in chart.iter(f"{SVG}text")]


@given(scores, labels, st.floats(1e-6, 1e6))
def test_a_histogram_stays_in_its_box_and_labels_its_threshold(
    values: list[float], label: str, threshold: float
) -> None:
    chart = parsed(histograms([Strip(label, "good", np.array(values))], [Mark("threshold", threshold)]))
    width, height = map(float, chart.attrib["viewBox"].split()[2:])
    for bar in chart.iter(f"{SVG}rect"):
        x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + w <= width
        assert y >= 0
        assert y + h <= height
        assert bar.attrib["class"] == "good"
    assert label in texts(chart)
    assert f"threshold {threshold:.4g}" in texts(chart)
    assert f"{len(values)} parts" in texts(chart)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=80))
def test_each_non_empty_bin_has_a_bar(bins: list[int]) -> None:
    chart = parsed(
        counted_histograms([CountedHistogram("Before", "before", "", bins)], Mark("threshold", 1), low=0, high=3)
    )
    heights = [float(bar.attrib["height"]) for bar in chart.iter(f"{SVG}rect")]
    filled = [count for count in bins if count]
    assert len(heights) == len(filled)
    np.testing.assert_allclose(heights, [64 * count / max(filled) for count in filled], atol=0.06)


@given(scores, scores)
def test_curves_have_a_point_for_each_epoch(training: list[float], validation: list[float]) -> None:
    lines = [("training", "good", training), ("validation", "held-out", validation)]
    chart = parsed(curves(lines, marked=1, axis="loss"))
    drawn = [line.attrib["points"].split() for line in chart.iter(f"{SVG}polyline")]
    assert [len(points) for points in drawn] == [len(training), len(validation)]
    assert "epoch 1" in texts(chart)
