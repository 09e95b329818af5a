"""The README's commands, run as they stand, in the README's order, against a running system."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.vision.detectors.autoencoder import Autoencoder, AutoencoderSettings
from tests.conftest import System
from tests.fixtures.part_images import png, write_folder

ROOT = Path(__file__).parents[3]
BLOCKS = re.compile(r"<!-- run by tests/system/test_readme.py -->\n```(bash|python)\n(.*?)```", re.DOTALL)
DOCUMENTED = "http://127.0.0.1:8000"

# For machines without curl: what the README uses of it.
CURL = """#!{python}
import sys, httpx
arguments, url, headers, body, form = iter(sys.argv[1:]), "", {{}}, None, []
for argument in arguments:
    if argument == "-H":
        name, _, value = next(arguments).partition(": ")
        headers[name] = value
    elif argument == "--data-binary":
        body = open(next(arguments)[1:], "rb").read()
    elif argument == "-F":
        name, _, value = next(arguments).partition("=")
        form.append((name, (value[1:], open(value[1:], "rb")) if value.startswith("@") else (None, value)))
    elif argument != "-s":
        url = argument
method = "POST" if body is not None or form else "GET"
print(httpx.request(method, url, headers=headers, content=body, files=form or None, timeout=60).text)
"""


def run(kind: str, block: str, folder: Path, environment: dict[str, str]) -> str:
    command = ["bash", "-euo", "pipefail", "-c", block] if kind == "bash" else [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(500)  # it trains a model
def test_its_commands_do_what_it_says(system: System, tmp_path: Path) -> None:
    write_folder(tmp_path / "parts", good=40, defective=3)
    (tmp_path / "part.png").write_bytes(png(500))
    (tmp_path / "scratched.png").write_bytes(png(501, scratched=True))
    torch.manual_seed(7)
    torch.save(Autoencoder(AutoencoderSettings(width=128, height=128)).state_dict(), tmp_path / "autoencoder.pth")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "linewatch").symlink_to(Path(sys.executable).parent / "linewatch")
    if shutil.which("curl") is None:
        (programs / "curl").write_text(CURL.format(python=sys.executable))
        (programs / "curl").chmod(stat.S_IRWXU)
    environment = os.environ | {
        "LINEWATCH_URL": system.url,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    blocks = BLOCKS.findall((ROOT / "README.md").read_text())
    said = [run(kind, block.replace(DOCUMENTED, system.url), tmp_path, environment) for kind, block in blocks]

    assert len(said) == 5
    tour, with_curl, with_python, afterwards, moved_over = said
    assert "ring" in tour
    assert '"status":"completed"' in with_curl
    assert '"part_id":"SN-4711"' in with_curl
    assert with_python.split()[0] in ("ok", "ng")
    assert "SN-4711" in afterwards
    assert "quality desk" in (tmp_path / "ring.csv").read_text()
    assert '"is_anomaly":' in moved_over
    assert '"threshold":0.002' in moved_over


def test_the_targets_that_it_names_are_there() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "lint", "bench"):
        assert f"make {target}" in listed


def test_the_files_that_it_names_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    for folder in re.findall(r"^([a-z]+)/ ", text, re.MULTILINE):
        assert (ROOT / folder).is_dir(), folder
    for file in re.findall(r"\]\(([a-z][^)]*)\)", text):
        assert file.startswith("http") or (ROOT / file).is_file(), file
