"""A wrong setting is one line that names its variable, whichever process finds it."""

import os
import subprocess
import sys

import pytest

from core.settings import SettingsError, read_settings

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


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("FEED_DAYS", "many", "integer"),
        ("WEBHOOK_RETRY_SECONDS", "5, soon", "number"),
        ("STORE_URL", "s3://bucket", "file:///absolute/path"),
        ("DATABASE_URL", "postgres://me:s3cret@host/parts", "postgresql+psycopg://"),
        ("REDIS_URL", "http://:s3cret@host", "rediss://"),
        ("MQTT_URL", "tcp://:s3cret@host", "mqtts://"),
    ],
)
def test_a_wrong_setting_is_named_and_its_secrets_are_not_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"LINEWATCH_{variable}", value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    line = str(refused.value)
    assert line.startswith(f"LINEWATCH_{variable}: ")
    assert told in line
    for unwanted in ("Value error", "s3cret", "\n"):
        assert unwanted not in line
