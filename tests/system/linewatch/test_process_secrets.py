"""A system of `linewatch up` shows no secret to other accounts of the machine: neither in `ps` nor in its log."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

TOKEN = "t0ken-of-the-receiver"  # noqa: S105 - what the test looks for


def run_command(system: System, *arguments: str, **variables: str) -> str:
    """Run a command as its own process; returns everything that it printed."""
    command = [sys.executable, "-m", "linewatch.cli", *arguments]
    environment = system.environment | {"LINEWATCH_URL": system.url} | variables
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return completed.stdout + completed.stderr


def wait_for_an_attempt(client: httpx.Client, delivery: str) -> None:
    deadline = time.monotonic() + 60
    while not client.get(f"/v1/deliveries/{delivery}").json()["attempts"]:
        assert time.monotonic() < deadline, "the webhook was not tried"
        time.sleep(0.1)


@pytest.fixture
def secrets(system: System, client: httpx.Client, recipe: str) -> dict[str, str]:
    """The secrets of a system in which all of them were used, by their kind."""
    key = run_command(system, "keys", "create", "station", "--data", str(system.data)).splitlines()[0]
    assert key.startswith("lw_")
    client.headers["Authorization"] = f"Bearer {key}"
    url = f"http://127.0.0.1:{system.webhook_port}/hook?token={TOKEN}"
    endpoint = client.post("/v1/webhook-endpoints", json={"url": url, "events": ["inspection.completed"]}).json()
    wait_for_an_attempt(client, client.post(f"/v1/webhook-endpoints/{endpoint['id']}/test").json()["id"])
    accepted = client.post(
        "/v1/inspections", params={"recipe": recipe}, content=png(1), headers={"Content-Type": "image/png"}
    ).json()
    assert client.get(f"/v1/inspections/{accepted['id']}", params={"wait": 60}).json()["status"] == "completed"
    client.delete(f"/v1/webhook-endpoints/{endpoint['id']}")
    passwords = {file.name: file.read_text().strip() for file in (system.data / "secrets").iterdir()}
    assert passwords.keys() >= {"postgres-password", "valkey-password"}
    found = passwords | {
        "API key": key.split("_", 2)[2],
        "webhook secret": endpoint["secret"].removeprefix("whsec_"),
        "token in a URL": TOKEN,
    }
    assert min(map(len, found.values())) > 16
    return found


def test_no_secret_is_in_process_lists_logs_and_reports(system: System, secrets: dict[str, str]) -> None:
    processes = psutil.Process(system.process.pid)
    family = [processes, *processes.children(recursive=True)]
    texts = {"log": system.log.read_text()}
    accounts = set()
    for process in family:
        folder = Path("/proc", str(process.pid))
        texts[f"arguments of {process.pid}"] = folder.joinpath("cmdline").read_text()
        environment = folder / "environ"
        accounts.add(environment.stat().st_uid)
        if environment.stat().st_uid != os.getuid():  # others run as that account, too, and may read it
            texts[f"environment of {process.pid}"] = environment.read_text()
    assert len(family) > len(["up", "postgres", "valkey", "api", "dispatcher", "scoring", "io", "training"])
    assert len(accounts) == (2 if os.getuid() == 0 else 1)
    texts["doctor"] = run_command(system, "doctor", "--data", str(system.data))
    texts["keys"] = run_command(system, "keys", "list", "--data", str(system.data))
    assert "PostgreSQL" in texts["doctor"]
    assert "station" in texts["keys"]
    shown = [(kind, place) for kind, secret in secrets.items() for place, text in texts.items() if secret in text]
    assert shown == []
