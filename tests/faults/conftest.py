"""A system with two scoring workers, as `linewatch up` runs it, and the table of recovery times."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.faults.injection import Target
from tests.fixtures.faults.recovery import Recovery
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.running_system import System

_RECOVERIES: list[Recovery] = []
_CLOSING_LINES: list[str] = []


@pytest.fixture(scope="session")
def recoveries() -> list[Recovery]:
    """What was measured, for the table at the end."""
    return _RECOVERIES


@pytest.fixture(scope="session")
def closing_lines() -> list[str]:
    """What the oracle said about rolling restarts, for the end."""
    return _CLOSING_LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _CLOSING_LINES:
        terminalreporter.section("rolling restarts")
        terminalreporter.line(line)
    if not _RECOVERIES:
        return
    terminalreporter.section("recovery")
    for recovery in _RECOVERIES:
        terminalreporter.line(f"{recovery.seconds:6.1f} s  {recovery.inspections:6} inspections  {recovery.fault}")
    total = sum(recovery.inspections for recovery in _RECOVERIES)
    terminalreporter.line(f"{max(one.seconds for one in _RECOVERIES):6.1f} s  {total:6} inspections  longest, and all")


@pytest.fixture(scope="session")
def target(reachable_folder: Path) -> Iterator[Target]:
    """A system that most tests share."""
    folder = reachable_folder / "faults"
    folder.mkdir()
    with System.running(folder, "--scoring-workers", "2") as system:
        yield Target.of(system)


@pytest.fixture
def uploads(target: Target, bundle: Path) -> Uploads:
    """Uploads of a recipe for this test alone."""
    return Uploads.of_a_new_recipe(target.system.url, bundle, seed=1)
