"""The code blocks of the README and the guides run unchanged and in order."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.fixtures import documentation
from tests.fixtures.documentation import DOCUMENTED_URL, ROOT, RUNNABLE, blocks, write_inputs
from tests.fixtures.running_system import System

PAGES = ("README.md", "docs/camera-line.md", "docs/quality.md", "docs/rescoring.md")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)


def test_every_code_block_can_be_run() -> None:
    for page in PAGES:
        assert {block.language for block in blocks(page)} <= set(RUNNABLE), page


@pytest.mark.timeout(900)  # trains five models
def test_the_code_blocks_run_in_order(system: System, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    variables = documentation.environment(tmp_path, system.url)
    replacements = {
        DOCUMENTED_URL: system.url,
        "/path/to/archive": str(system.data / "archive"),
        "linewatch train": "linewatch train --architecture feature-gaussian --input-size 64",
        '"architecture": "feature-gaussian"': '"architecture": "feature-gaussian", "input_size": 64',
    }
    printed = {"README.md": documentation.run_all("README.md", tmp_path, variables, replacements)}
    # The README's training learned how to align the parts; learning it again for the other pages shows nothing new.
    replacements["linewatch train"] += " --alignment off --pose as-is"
    replacements['"architecture": "feature-gaussian"'] += ', "alignment": "off", "pose": "as-is"'
    printed |= {page: documentation.run_all(page, tmp_path, variables, replacements) for page in PAGES[1:]}

    tour, with_curl, with_python = printed["README.md"]
    assert "ring" in tour
    assert '"status":"completed"' in with_curl
    assert '"part_id":"SN-4711"' in with_curl
    assert with_python.split()[0] in ("ok", "ng")

    one_image, retried, burst, burst_in_python, moved_over = printed["docs/camera-line.md"]
    assert '"status":"completed"' in one_image
    assert retried == ""
    assert '"inspections":' in burst
    assert burst_in_python.split() == ["completed", "2"]
    assert '"is_anomaly":' in moved_over
    assert '"threshold":0.002' in moved_over

    *_, overruled, queue, learned = printed["docs/quality.md"]
    assert "SN-4711" in overruled
    assert queue.split()[-1].isdecimal()
    assert "Of the newest inspections" in learned
    assert "To activate it: linewatch models activate --recipe ring" in learned
    assert "quality desk" in (tmp_path / "ring.csv").read_text()


def test_make_targets_in_the_documentation_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"`make ([a-z-]+)", "".join((ROOT / document).read_text() for document in DOCUMENTS)))
    assert {"demo", "test", "help"} <= targets
    for target in targets - {"help"}:
        assert f"make {target} " in listed, target
    assert "make help" in listed


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_are_not_broken(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_the_documentation_exist(document: str) -> None:
    """Checks paths in backticks, such as `core/queue/` or `api/app.py`."""
    text = (ROOT / document).read_text()
    for named in re.findall(r"`((?:api|core|worker|linewatch|migrations|tests|benchmarks|docs)/[\w./-]*)`", text):
        assert (ROOT / named).exists(), named
