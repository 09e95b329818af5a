"""The demo's detectors, on its real images."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from linewatch import Client
from linewatch.server.demo.__main__ import _REFERENCE_OPTIONS, _active_version
from linewatch.server.demo.cells import link_images
from tests.fixtures.running_system import System


def test_the_reference_is_active_although_it_is_not_fit_for_use(system: System, tmp_path: Path) -> None:
    all_cells = link_images(tmp_path)
    training = sorted(all_cells.training)
    for path in training[60:]:
        path.unlink()
    cells = replace(all_cells, training=training[:60])
    options = replace(_REFERENCE_OPTIONS, epochs=1)
    with Client(system.url) as lw:
        version = _active_version(Console(quiet=True), lw, cells, "demo-reference", options)
        assert version.active
        assert version.manifest["detectability"]["fit_for_use"] is False
        again = _active_version(Console(quiet=True), lw, cells, "demo-reference", options)
    assert again.version == version.version
