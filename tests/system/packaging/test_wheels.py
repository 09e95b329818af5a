"""Both distributions, built as wheels and installed in separate environments."""

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png
from tests.fixtures.servers import free_port
from tests.fixtures.system_health import faults

ROOT = Path(__file__).parents[3]
LARGEST_CLIENT = 10_000_000  # bytes, with its dependencies and compiled


@dataclass(frozen=True)
class Environment:
    """A virtual environment without packages of this checkout."""

    folder: Path

    @property
    def packages(self) -> Path:
        [site_packages] = self.folder.glob("lib/python*/site-packages")
        return site_packages

    def run(self, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
        program, *rest = map(str, arguments)
        return subprocess.run(
            [self.folder / "bin" / program, *rest],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.variables(**variables),
            timeout=120,
        )

    def variables(self, **changes: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LINEWATCH_", "PYTHON"))}
        return inherited | {"XDG_CACHE_HOME": str(self.folder / "cache")} | changes


def make_environment(folder: Path, *packages: object) -> Environment:
    """Create an environment with these packages."""
    venv.create(folder, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--quiet", *packages]
    subprocess.run([str(argument) for argument in pip], check=True, cwd=folder)
    return Environment(folder)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both distributions, by name."""
    folder = tmp_path_factory.mktemp("wheels")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT / "linewatch", ROOT], check=True)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def client(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the client and its declared dependencies."""
    constraints = ROOT / "requirements.lock"
    return make_environment(tmp_path_factory.mktemp("client"), wheels["linewatch_client"], "--constraint", constraints)


@pytest.fixture(scope="module")
def server(wheels: dict[str, Path], reachable_folder: Path) -> Iterator[Environment]:
    """Both wheels, with the dependencies of this environment, but without its editable packages."""
    folder = reachable_folder / "server"
    environment = make_environment(folder, "--no-deps", *wheels.values())
    (environment.packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    yield environment
    shutil.rmtree(folder)


def top_level(wheel: Path) -> set[str]:
    """Return the names that a wheel installs in site-packages, apart from its metadata."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return {name for name in names if not name.endswith(".dist-info")}


def test_both_wheels_have_one_top_level_package_and_share_no_file(wheels: dict[str, Path]) -> None:
    assert {name: top_level(wheel) for name, wheel in wheels.items()} == {
        "linewatch": {"linewatch"},
        "linewatch_client": {"linewatch"},
    }
    files = [set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels.values()]
    assert not files[0] & files[1]


def test_both_wheels_contain_the_licence(wheels: dict[str, Path]) -> None:
    for wheel in map(zipfile.ZipFile, wheels.values()):
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert wheel.read(name) == (ROOT / "LICENSE").read_bytes()


def test_the_server_wheel_contains_the_pages(wheels: dict[str, Path]) -> None:
    files = set(zipfile.ZipFile(wheels["linewatch"]).namelist())
    page = {f"page/{name}" for name in ("index.html", "app/main.js", "strings/en.js", "vendor/preact.mjs")}
    assert {f"linewatch/server/lib/api/{name}" for name in (*page, "docs.html", "docs.js")} <= files


def test_both_distributions_have_the_same_version() -> None:
    server, client = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, ROOT / "linewatch")
    )
    assert server["version"] == client["version"]
    assert f"linewatch-client=={client['version']}" in server["dependencies"]


def test_the_client_is_small(client: Environment) -> None:
    size = sum(path.stat().st_size for path in client.packages.rglob("*") if path.is_file())
    assert list(client.packages.rglob("*.pyc"))  # compiled files count too
    assert size < LARGEST_CLIENT


def test_the_client_imports_without_the_server(client: Environment) -> None:
    imports = "from linewatch import AsyncClient, Client, verify_webhook, Inspection"
    absent = "import importlib.util as u; print([n for n in ('core', 'api', 'worker', 'migrations') if u.find_spec(n)])"
    completed = client.run("python", "-W", "error", "-c", f"{imports}; {absent}")
    assert (completed.returncode, completed.stdout.strip()) == (0, "[]"), completed.stderr


def test_the_client_prints_its_version(client: Environment, wheels: dict[str, Path]) -> None:
    completed = client.run("linewatch", "--version")
    assert completed.stdout == f"linewatch {wheels['linewatch_client'].name.split('-')[1]}\n"


def test_the_client_submits_and_lists(client: Environment, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "part.png").write_bytes(png(1))
    with running_api(settings) as http:
        assert http.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201
        url = str(http.base_url)
        submitted = client.run("linewatch", "submit", tmp_path, "--recipe", "ring", LINEWATCH_URL=url)
        assert (submitted.returncode, submitted.stderr) == (0, ""), submitted.stderr
        assert "1 images were accepted" in submitted.stdout
        listed = client.run("linewatch", "list", "--recipe", "ring", "--json", LINEWATCH_URL=url)
        assert json.loads(listed.stdout)["external_id"] == "part.png"
        table = client.run("linewatch", "list", LINEWATCH_URL=url).stdout.splitlines()
        assert [table[0].split()[:2], table[1].split()[:2]] == [["image", "result"], ["part.png", "queued"]]


@pytest.mark.parametrize(
    "arguments",
    [
        "up",
        "up --port 1",
        "train --data . --recipe r",
        "keys create --help",
        "models import net.pth --recipe r --threshold 1",
    ],
)
def test_server_commands_name_the_package_to_install(client: Environment, arguments: str, settings: Settings) -> None:
    (client.folder / "net.pth").touch()
    with running_api(settings) as http:
        completed = client.run("linewatch", *arguments.split(), LINEWATCH_URL=str(http.base_url))
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("linewatch: ")
    assert completed.stderr.endswith("needs the server, and only the client is installed here: pip install linewatch\n")


def test_help_of_the_client_lists_all_commands(client: Environment) -> None:
    completed = client.run("linewatch", "--help")
    assert completed.returncode == 0
    assert "submit " in completed.stdout
    assert "Needs the server: pip install linewatch" in completed.stdout


def test_the_server_installs_no_common_package_names(server: Environment) -> None:
    for name in ("api", "core", "migrations", "worker"):
        completed = server.run("python", "-c", f"import linewatch, {name}")
        assert f"No module named '{name}'" in completed.stderr


def test_the_path_of_the_server_code_is_printed(server: Environment) -> None:
    path = server.run("python", "-m", "linewatch.server").stdout.strip()
    assert path == str(server.packages / "linewatch/server/lib")
    imports = "import api.app, core.settings, migrations, worker.app; print(core.__file__)"
    completed = server.run("python", "-c", imports, PYTHONPATH=path)
    assert completed.stdout.strip() == f"{path}/core/__init__.py", completed.stderr


def test_the_installed_system_runs(server: Environment, reachable_folder: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running_up(server, reachable_folder / "installed", port) as log:
        completed = server.run("linewatch", "status", "--json", LINEWATCH_URL=url)
        assert json.loads(completed.stdout)["ready"], log.read_text()
        wait_until_healthy(server, url)  # every worker has reported
        doctor = server.run("linewatch", "doctor", "--data", reachable_folder / "installed", LINEWATCH_URL=url)
        assert "linewatch/server/lib" not in doctor.stdout
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr


def wait_until_healthy(environment: Environment, url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        found = faults(json.loads(environment.run("linewatch", "status", "--json", LINEWATCH_URL=url).stdout))
        if not found:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@contextmanager
def running_up(environment: Environment, data: Path, port: int) -> Iterator[Path]:
    """Run `linewatch up` in this environment, and yield its log file once it is ready."""
    log = data.with_suffix(".log")
    command: list[str | Path] = [
        environment.folder / "bin/linewatch",
        "up",
        "--port",
        str(port),
        "--data",
        data,
        "--device",
        "cpu",
    ]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment.variables(), cwd=data.parent
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"ready: http://127.0.0.1:{port}\n", log.read_text()
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
        process.stdout.close()
