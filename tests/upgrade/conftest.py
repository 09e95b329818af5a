"""The code of the previous release, and a database for each test."""

import io
import os
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
from packaging.requirements import Requirement
from sqlalchemy.engine import make_url

from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.rolling.plant import Plant
from tests.fixtures.rolling.processes import NEW

_CLOSING_LINES: list[str] = []


@pytest.fixture(scope="session")
def closing_lines() -> list[str]:
    """What the oracle said, for the end."""
    return _CLOSING_LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _CLOSING_LINES:
        terminalreporter.section("upgrades")
    for line in _CLOSING_LINES:
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the code of the previous release: that of PREVIOUS, or of the newest tag before this commit.

    It runs in the environment of this one, so its requirements must agree with it.
    """
    reference = os.environ.get("PREVIOUS") or _newest_tag()
    folder = tmp_path_factory.mktemp("previous")
    archive = _git("archive", "--format=tar", reference)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    requirements = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    for requirement in map(Requirement, requirements):
        if requirement.name == "linewatch-client":  # it is in the folder, too
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            installed = version(requirement.name)
            assert requirement.specifier.contains(installed, prereleases=True), (
                f"{reference} needs {requirement}; {installed} is installed"
            )
    return folder


def _newest_tag() -> str:
    is_tagged = _git("tag", "--points-at", "HEAD").strip()
    try:
        return _git("describe", "--tags", "--abbrev=0", "HEAD^" if is_tagged else "HEAD").decode().strip()
    except AssertionError as error:
        raise AssertionError(f"no release to compare with; name one: make test-upgrade PREVIOUS=… ({error})") from None


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=NEW, capture_output=True, check=False)
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr.decode().strip()}"
    return done.stdout


@pytest.fixture
def plant(execute_sql: Callable[[str], None], servers: EmbeddedServers, reachable_folder: Path) -> Iterator[Plant]:
    """A system with an empty database. No process of it runs yet."""
    name = f"plant_{uuid4().hex}"
    execute_sql(f"CREATE DATABASE {name}")
    folder = reachable_folder / name
    folder.mkdir()
    url = make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)
    with Plant.prepared(url, servers.redis_url, folder, keepalive_seconds=2) as prepared:
        yield prepared
    execute_sql(f"DROP DATABASE {name} WITH (FORCE)")
