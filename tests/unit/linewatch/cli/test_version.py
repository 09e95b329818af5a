"""`linewatch --version`."""

from importlib.metadata import version

import pytest

from linewatch.cli import run


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"linewatch {version('linewatch')}\n"
    assert run(["--version", "submit"]) == 0
