"""The demo's images and its warning about a weak detector."""

from pathlib import Path

from linewatch.server.demo.cells import link_images
from linewatch.server.demo.report import Detection, _compare_with_controls


def test_the_burst_contains_no_training_images(tmp_path: Path) -> None:
    cells = link_images(tmp_path)
    assert link_images(tmp_path) == cells  # the second run finds the same
    assert (len(cells.training), len(cells.good), len(cells.defective), cells.unsure) == (294, 294, 313, 173)
    names = [path.name for path in (*cells.training, *cells.good, *cells.defective)]
    assert len(set(names)) == len(names) == 901
    assert all(path.is_file() for path in cells.training)


def test_the_report_warns_if_a_control_beats_the_detector() -> None:
    controls = {"mean_brightness": 0.774, "nearest_thumbnail": 0.9}
    assert "does not beat the control 'nearest thumbnail'" in _compare_with_controls(
        Detection(0.85, (0.8, 0.9), controls)
    )
    assert _compare_with_controls(Detection(0.95, (0.9, 1.0), controls)) == "The detector beats every trivial control."
