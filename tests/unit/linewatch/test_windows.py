"""The client's distribution runs on Windows. `make lint` checks its types for Windows; here it is imported as there."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = """
import importlib, json, sys
import asyncio, click, filelock, httpx, msgspec, sqlite3, tabulate, tqdm  # on this platform they may need what follows
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"):
    sys.modules[name] = None
for name in json.load(sys.stdin):
    importlib.import_module(name)
"""


def modules_of_the_client() -> list[str]:
    """The modules of `linewatch-client`, except those that run a command when they are imported."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "linewatch").rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return sorted(name for name in names if not name.startswith("linewatch.server") and not name.endswith("__main__"))


def test_every_module_of_the_client_is_imported_without_what_windows_lacks() -> None:
    names = modules_of_the_client()
    assert {"linewatch.client", "linewatch.cli.journal", "linewatch.cli.commands.watch"} <= set(names)
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(names), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert completed.returncode == 0, completed.stderr


def test_output_that_the_console_cannot_show_is_escaped() -> None:
    code = "from linewatch.cli.program import run; run(['submit', 'Prüfling-螺丝.png', '--recipe', 'r'])"
    command = [sys.executable, "-X", "utf8=0", "-c", f"import sys\n{code}\nprint('螺丝')"]
    completed = subprocess.run(
        command, capture_output=True, check=False, cwd=ROOT, env={"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.strip() == rb"\u87ba\u4e1d"
    assert b"Pr\xfcfling-\\u87ba\\u4e1d.png does not exist" in completed.stderr
