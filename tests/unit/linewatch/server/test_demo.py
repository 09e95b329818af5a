"""The demo's images, and that it says plainly when its detector is beaten by a shortcut."""

from pathlib import Path

from linewatch.server.demo.cells import lay_out
from linewatch.server.demo.report import Detection, _verdict_on_detector


def test_the_burst_holds_out_what_is_trained_on(tmp_path: Path) -> None:
    cells = lay_out(tmp_path)
    assert lay_out(tmp_path) == cells  # the second run finds the same
    assert (len(cells.training), len(cells.good), len(cells.defective), cells.unsure) == (294, 294, 313, 173)
    names = [path.name for path in (*cells.training, *cells.good, *cells.defective)]
    assert len(set(names)) == len(names) == 901
    assert all(path.is_file() for path in cells.training)


def test_a_detector_that_loses_to_a_shortcut_is_said_to() -> None:
    controls = {"mean_brightness": 0.774, "nearest_thumbnail": 0.9}
    assert "does not beat the control 'nearest thumbnail'" in _verdict_on_detector(
        Detection(0.85, (0.8, 0.9), controls)
    )
    assert _verdict_on_detector(Detection(0.95, (0.9, 1.0), controls)) == "The detector beats every trivial control."
