"""What is in the images, and what they run as."""

import json
import tomllib

import pytest

from tests.fixtures.compose import ROOT
from tests.fixtures.containers import REGISTRY, Project, run

LOCKED = dict(line.split(";")[0].strip().split("==") for line in (ROOT / "requirements.lock").read_text().splitlines())
PACKAGES = """
import importlib.metadata as metadata, json
print(json.dumps({one.metadata["Name"].lower().replace("_", "-"): one.version for one in metadata.distributions()}))
"""


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, project: Project, report: list[str]) -> str:
    name: str = request.param
    if name == "worker":
        project.build("scoring-gpu")
    tag = f"{REGISTRY}/{name}:new"
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", tag))
    installed = inside(tag, "du", "-s", "--block-size=1M", "/opt/linewatch").split()[0]
    report.append(f"{name}: {size / 1e6:,.0f} MB, of which {installed} MiB are packages")
    return tag


def inside(image: str, *command: str) -> str:
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
    return run("docker", "run", "--rm", *hardened, "--network", "none", image, *command)


def test_it_runs_as_a_user_without_privileges(image: str) -> None:
    assert inside(image, "id", "-u").split() == ["10001"]
    find = ("find", "/opt", "/var/lib", "-writable", "-not", "-type", "l")
    writable = run("docker", "run", "--rm", image, *find).split()  # its root file system is not read-only
    assert sorted(writable) == ["/var/lib/linewatch", "/var/lib/linewatch/scratch", "/var/lib/linewatch/store"]


def test_it_has_the_code_and_the_version(image: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert inside(image, "linewatch", "--version").split()[-1] == version
    assert "/opt/linewatch/code/core/settings.py" in inside(
        image, "python", "-c", "import core.settings as s; print(s.__file__)"
    )


def test_only_workers_have_torch(image: str) -> None:
    program = "import importlib.util as u; print([n for n in ('torch', 'torchvision', 'scipy') if u.find_spec(n)])"
    found = inside(image, "python", "-c", program).strip()
    assert found == ("[]" if "/api:" in image else "['torch', 'torchvision', 'scipy']")


def test_the_sbom_lists_every_package(image: str) -> None:
    sbom = json.loads(inside(image, "cat", "/opt/linewatch/sbom.cdx.json"))
    assert sbom["bomFormat"] == "CycloneDX"
    listed = {one["name"].lower().replace("_", "-"): one["version"] for one in sbom["components"]}
    assert listed == json.loads(inside(image, "python", "-c", PACKAGES))
    assert {"linewatch", "linewatch-client", "fastapi"} <= listed.keys()
    assert "cyclonedx-bom" not in listed


def test_packages_have_the_locked_versions(image: str) -> None:
    listed = json.loads(inside(image, "python", "-c", PACKAGES))
    several = {
        line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "python_full" in line
    }
    for name, version in listed.items():
        if name in LOCKED and name not in {*several, "setuptools"}:  # torch has it; the api has that of the base's venv
            assert version.partition("+")[0] == LOCKED[name], name  # PyTorch's own index adds `+cpu`
    assert len(listed.keys() & LOCKED.keys()) > 40


def test_no_secret_of_the_build_is_left(image: str) -> None:
    assert inside(image, "sh", "-c", "test ! -s /etc/pip.conf && ls -A /run/secrets 2> /dev/null || true") == ""


def test_the_api_can_dump_a_database(project: Project) -> None:
    program = """
import subprocess
from linewatch.server.embedded.binaries import client_program
for name in ("pg_dump", "pg_restore"):
    subprocess.run([client_program(name), "--version"], check=True)
"""
    assert inside(f"{REGISTRY}/api:new", "python", "-c", program).count("(PostgreSQL) 18.") == 2
