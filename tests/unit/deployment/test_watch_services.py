"""The service files of `linewatch watch`: their command lines are understood."""

import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

from linewatch.cli.commands.watch import watch
from linewatch.cli.watching.patterns import PathPattern

FOLDER = Path(__file__).parents[3] / "deploy" / "watch-folder"
UNIT = FOLDER / "linewatch-watch@.service"
NAMESPACE = {"task": "http://schemas.microsoft.com/windows/2004/02/mit/task"}


def parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse the arguments of `linewatch watch`."""
    return watch.make_context("watch", list(arguments)).params


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text())
    return parser


def test_the_unit_of_systemd_starts_a_watch() -> None:
    lines = (FOLDER / "watch-line-2.conf").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    program, *words = unit()["Service"]["ExecStart"].split()
    assert program.endswith("/linewatch")
    arguments = []
    for word in words:  # as systemd does it: ${NAME} is one word, $NAME is split at blanks
        if word.startswith("${"):
            arguments.append(settings[word[2:-1]])
        else:
            arguments += settings[word[1:]].split() if word.startswith("$") else [word]
    assert arguments.pop(0) == "watch"
    parsed = parameters(arguments)
    assert (parsed["recipe"], parsed["line"], parsed["once"]) == ("ring", "line-2", False)
    assert str(parsed["journal"]) == "%S/" + unit()["Service"]["StateDirectory"]
    assert PathPattern.parse(parsed["fields"]).fields == {"lot_id", "part_id", "view"}


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    assert {"Unit", "Service", "Install"} <= set(unit().sections())
    if shutil.which("systemd-analyze") is None:
        return
    file = tmp_path / "linewatch-watch@line-2.service"
    file.write_text(UNIT.read_text().replace("/opt/linewatch/bin/linewatch", "/bin/true"))
    completed = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60)
    assert str(file.name) not in completed.stderr, completed.stderr


def test_the_task_of_windows_starts_a_watch() -> None:
    task = ElementTree.parse(FOLDER / "linewatch-watch.xml").getroot()  # noqa: S314 - our file
    text = task.findtext("task:Actions/task:Exec/task:Arguments", namespaces=NAMESPACE)
    assert text is not None
    options, _, command = text.partition('"')
    assert options == "/d /c "
    program, *arguments = shlex.split(command.rstrip('"').partition(" >")[0], posix=False)
    assert program.endswith(r"\linewatch.exe")
    assert arguments.pop(0) == "watch"
    parsed = parameters(arguments)
    assert (parsed["recipe"], str(parsed["journal"]), parsed["once"]) == ("ring", r"C:\ProgramData\Linewatch", False)
    assert task.findtext("task:Settings/task:MultipleInstancesPolicy", namespaces=NAMESPACE) == "IgnoreNew"
    assert task.findtext("task:Settings/task:ExecutionTimeLimit", namespaces=NAMESPACE) == "PT0S"
