from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.speed import report
from benchmarks.speed.figures import Latency
from benchmarks.speed.results import BARE_LOOP, LINEWATCH, Cell, LoadedLatency, Results
from benchmarks.speed.run import LOAD_GENERATOR, Run


def run(rate: float, cpu_ms: float) -> Run:
    return Run(
        images=100, seconds=100 / rate, cpu_ms={"api": cpu_ms, LOAD_GENERATOR: 50.0}, memory_bytes={"api": 3 * 2**20}
    )


@pytest.fixture
def results() -> Results:
    alternations = [
        {BARE_LOOP: run(100, 9), LINEWATCH: run(80, 1)},
        {LINEWATCH: run(30, 2), BARE_LOOP: run(50, 9)},
        {BARE_LOOP: run(200, 9), LINEWATCH: run(180, 6)},
    ]
    latency = LoadedLatency(LINEWATCH, "50 % of capacity", 100, 40.0, Latency(0.02, 0.5, 1.25))
    cells = [Cell("JPEG", alternations, {BARE_LOOP: "minibatches of 8"})]
    return Results({"CPU": "a CPU"}, {"torch": "2"}, cells, [latency], minutes=29.6)


def test_the_tables_show_medians_and_spreads(results: Results) -> None:
    text = report.render_markdown(results)
    assert "| Linewatch | 0.80 (0.60 to 0.90) | 80.0 (30.0 to 180.0) |" in text
    assert "| bare loop | 1.00 | 100.0 (50.0 to 200.0) |" in text
    assert "| Linewatch | api | 2.00 |" in text
    assert "| Linewatch | **all but the load generator** | **2.00** |" in text
    assert "| Linewatch | **all** | **3** |" in text
    assert "| Linewatch | 50 % of capacity | 40.0 | 20 | 500 | 1250 |" in text


def test_the_files_can_be_rendered_anew_from_the_stored_figures(results: Results, tmp_path: Path) -> None:
    report.write(results, tmp_path)
    assert report.read(tmp_path) == results
    ElementTree.parse(tmp_path / "speed.svg")  # noqa: S314 - written by this test
