"""A wrong setting is one line that names its variable, whichever process finds it."""

import os
import subprocess
import sys

import pytest

PROCESSES = {
    "api": ["api"],
    "dispatcher": ["worker.dispatcher"],
    "migrations": ["migrations"],
    "scoring": ["celery", "-A", "worker.scoring", "worker", "--pool", "threads"],
    "io": ["celery", "-A", "worker.io", "worker", "--pool", "threads"],
}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_with_a_wrong_setting_ends_with_a_line(process: str) -> None:
    environment = os.environ | {"LINEWATCH_WEBHOOK_ALLOW": "https://mes.example"}
    command = [sys.executable, "-m", *PROCESSES[process]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("linewatch: LINEWATCH_WEBHOOK_ALLOW: 'https://mes.example' is no entry")
    assert done.stdout == ""
