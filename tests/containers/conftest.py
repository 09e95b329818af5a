"""Images built from the working tree, in a Docker daemon; and what was measured, for the end of the report."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from linewatch.server.demo.cells import link_images
from tests.fixtures.compose import ROOT
from tests.fixtures.containers import Project, Services, base_image, running_daemon

_REPORT: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cuda", action="store_true", help="build and check the image `worker` too, of several gigabytes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "image" in metafunc.fixturenames:
        names = ["api", "worker-cpu", *(["worker"] if metafunc.config.getoption("--cuda") else [])]
        metafunc.parametrize("image", names, indirect=True, scope="module")


@pytest.fixture(scope="session")
def report() -> list[str]:
    """Lines for the end of the report."""
    return _REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _REPORT:
        terminalreporter.section("containers")
        for line in _REPORT:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def python_image() -> Iterator[str]:
    """The base image that the Dockerfile pins, or a stand-in if no registry can be reached."""
    [pinned] = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    with running_daemon(Path(os.environ.get("DOCKER_DATA", ROOT / ".containers"))):
        yield os.environ.get("PYTHON_IMAGE") or base_image(pinned)


@pytest.fixture(scope="session")
def project(python_image: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The working tree, with the images of its api and of scoring on CPUs, and those of the servers."""
    project = Project.of_working_tree(tmp_path_factory.mktemp("new"), python_image, TAG="new")
    project.build("api", "scoring-cpu", *project.built_servers)
    return project


@pytest.fixture(scope="module")
def services(project: Project) -> Iterator[Services]:
    """The running services of the profile `cpu`, shared by the tests of a module."""
    with project.running() as services:
        yield services


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Real images of solar cells."""
    linked = link_images(tmp_path_factory.mktemp("cells"))
    return [path.read_bytes() for path in [*linked.good, *linked.defective]]
