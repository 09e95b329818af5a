"""PIP_EXTRA_INDEX_URL: `worker-cpu` takes torch and torchvision from there. Stand-ins of CPU wheels show which."""

import functools
import http.server
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.compose import ROOT
from tests.fixtures.containers import REGISTRY, Project, run

LOCKED = [line.split(";")[0].strip().split("==") for line in (ROOT / "requirements.lock").read_text().splitlines()]
VERSIONS = {name: version for name, version in LOCKED if name in ("torch", "torchvision")}


@pytest.fixture
def cpu_index(tmp_path: Path) -> Iterator[str]:
    """An index of wheels without content, with the versions that PyTorch gives its CPU wheels."""
    for name, version in VERSIONS.items():
        wheel, info = f"{name}-{version}+cpu-py3-none-any.whl", f"{name}-{version}+cpu.dist-info"
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / wheel, "w") as archive:
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+cpu\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        (tmp_path / name / "index.html").write_text(f'<a href="{wheel.replace("+", "%2B")}">{wheel}</a>')
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_worker_cpu_takes_torch_from_the_given_index(
    project: Project, python_image: str, cpu_index: str, tmp_path: Path
) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    variables = {"TAG": "cpu-wheels", "PIP_EXTRA_INDEX_URL": cpu_index}
    Project.of_working_tree(folder, python_image, **variables).build("scoring-cpu")
    image = f"{REGISTRY}/worker-cpu:cpu-wheels"
    sbom = json.loads(run("docker", "run", "--rm", image, "cat", "sbom.cdx.json"))
    listed = {one["name"]: one["version"] for one in sbom["components"]}
    assert {name: listed[name] for name in VERSIONS} == {name: f"{version}+cpu" for name, version in VERSIONS.items()}
    assert [name for name in listed if name.startswith("nvidia-") and name != "nvidia-ml-py"] == []
    run("docker", "image", "rm", image)
