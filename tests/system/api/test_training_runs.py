"""Training runs in a running system: to a ready version, after kills, without Redis, and cancelled."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
import redis
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.fixtures.child_processes import children
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System
from tests.fixtures.training_runs import QUICK
from tests.fixtures.waiting import eventually

PATIENCE = 100.0  # seconds; the machine may be busy


@pytest.fixture
def start(client: httpx.Client, recipe: str) -> Callable[..., str]:
    """`start()` starts a training of a dozen uploaded parts, and returns its path."""

    def start(**options: Any) -> str:
        run = client.post(f"/v1/recipes/{recipe}/training-runs", json={"options": {**QUICK, **options}})
        path: str = run.headers["Location"]
        files = [("images", (f"{seed:04}.png", png(seed))) for seed in range(12)]
        assert client.post(f"{path}/images", files=files).json()["images"] == {"good": 12}
        assert client.post(f"{path}/start").json()["status"] == "queued"
        return path

    return start


def ended(client: httpx.Client, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        run: dict[str, Any] = client.get(path, params={"wait": 30}).json()
        if run["finished_at"] is not None:
            return run
    raise AssertionError("the training does not end")


def training_children(worker: psutil.Process) -> list[psutil.Process]:
    return children("training_runs.program", worker)


def test_uploaded_parts_become_a_ready_version(
    client: httpx.Client, recipe: str, system: System, start: Callable[..., str]
) -> None:
    submitted = client.post("/v1/inspections", data={"recipe": recipe}, files={"image": ("part.png", png(1))})
    client.get(submitted.headers["Location"], params={"wait": 60})
    worker = system.child("worker.training")
    worker.suspend()
    try:
        path = start()
        with redis.Redis.from_url(system.child("-m api").environ()["LINEWATCH_REDIS_URL"]) as queues:
            queues.flushall()
    finally:
        worker.resume()
    run = ended(client, path)
    assert (run["status"], run["reason"]) == ("completed", None)
    result = run["result"]
    assert (result["model_version"], result["comparison"]["inspections"]) == (2, 1)
    versions = f"/v1/recipes/{recipe}/model-versions"
    eventually(lambda: client.get(f"{versions}/2").json()["state"], "ready", seconds=PATIENCE)
    assert client.get(f"/v1/recipes/{recipe}").json()["active_version"] == 1
    report = client.get(f"{path}/report")
    assert report.headers["Content-Type"].startswith("text/html")
    assert f"Training on {recipe}" in report.text
    assert client.post(f"{versions}/2/activate").json()["active"] is True


def test_a_killed_training_worker_loses_no_training_and_a_cancelled_one_stops(
    client: httpx.Client, system: System, start: Callable[..., str]
) -> None:
    path = start(epochs=400)
    eventually(lambda: client.get(path).json()["progress"]["stage"], "training", seconds=PATIENCE)
    worker = system.child("worker.training")
    [child] = training_children(worker)
    folder = system.data / "store" / "trainings" / path.rpartition("/")[2] / "checkpoints"
    eventually(lambda: any(len(file.stem) == 64 for file in folder.glob("*.checkpoint")), True)
    worker.kill()
    assert psutil.wait_procs([child], timeout=20)[1] == []  # it ends with its worker
    expire_leases(system)
    eventually(lambda: client.get(path).json()["attempt"], 2, seconds=PATIENCE)
    eventually(
        lambda: "continues from the checkpoint" in str(client.get(path).json()["progress"]["notes"]),
        True,
        seconds=PATIENCE,
    )
    [child] = training_children(system.child("worker.training"))
    assert client.post(f"{path}/cancel").json()["status"] == "cancelled"
    assert psutil.wait_procs([child], timeout=10)[1] == []
    assert client.get(path).json()["status"] == "cancelled"
    eventually(folder.exists, False)


def expire_leases(system: System) -> None:
    """Expire the leases of training runs now, not after some seconds."""
    engine = create_engine(system.child("-m api").environ()["LINEWATCH_DATABASE_URL"], poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE training_runs SET lease_until = now() WHERE state = 'running'"))
