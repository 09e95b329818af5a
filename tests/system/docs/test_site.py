"""The documentation site."""

import subprocess
import sys
from pathlib import Path

from tests.fixtures.documentation import ROOT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "reference.html").read_text()
    assert "/v1/inspections/{inspection_id}" in reference
    for page in ("index", "mes", "operations", "changelog", "measured/speed"):
        assert (tmp_path / f"{page}.html").is_file()
