"""Every process reports an invalid setting with one line that names its variable."""

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
    "training": ["celery", "-A", "worker.training", "worker", "--pool", "threads"],
}


@pytest.mark.parametrize("process", PROCESSES)
def test_an_invalid_setting_ends_a_process_with_one_line(process: str) -> None:
    environment = os.environ | {"LINEWATCH_WEBHOOK_ALLOW": "https://mes.example"}
    command = [sys.executable, "-m", *PROCESSES[process]]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 2, completed.stderr
    [line] = completed.stderr.splitlines()
    assert line.startswith("linewatch: LINEWATCH_WEBHOOK_ALLOW: 'https://mes.example' is not a valid entry")
    assert completed.stdout == ""
