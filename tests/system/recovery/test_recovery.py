"""Accepted inspections survive a flushed Redis, killed servers and workers, and a damaged image store."""

import os
import time

import httpx
import psutil
import redis

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System


def submit(client: httpx.Client, recipe: str, number: int) -> list[str]:
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(number)]
    answer = client.post("/v1/batches", data={"recipe": recipe}, files=files)
    assert answer.status_code == 202, answer.text
    return [answer.json()["id"], *(inspection["id"] for inspection in answer.json()["inspections"])]


def completed(client: httpx.Client, batch_id: str) -> dict[str, int]:
    batch = client.get(f"/v1/batches/{batch_id}", params={"wait": 60}).json()
    assert batch["status"] == "completed", batch
    counts: dict[str, int] = batch["counts"]
    return counts


def redis_of(system: System) -> redis.Redis:
    api = system.child("-m api")
    return redis.Redis.from_url(api.environ()["LINEWATCH_REDIS_URL"])


def test_a_flushed_redis_loses_no_inspection(client: httpx.Client, recipe: str, system: System) -> None:
    worker = system.child("worker.scoring")
    worker.suspend()
    try:
        batch_id, *_ = submit(client, recipe, 70)
        with redis_of(system) as queue:
            deadline = time.monotonic() + 20
            while queue.llen("live") == 0 and time.monotonic() < deadline:
                time.sleep(0.05)
            queue.flushall()
    finally:
        worker.resume()
    assert completed(client, batch_id)["completed"] == 70


def test_uploads_are_accepted_while_redis_is_down(client: httpx.Client, recipe: str, system: System) -> None:
    valkey = system.child("valkey-server")
    valkey.suspend()
    try:
        begun = time.monotonic()
        batch_id, *_ = submit(client, recipe, 3)
        assert client.get("/readyz").status_code == 200
        assert time.monotonic() - begun < 30  # much shorter than the outage of Redis
    finally:
        valkey.resume()
    assert completed(client, batch_id)["completed"] == 3


def test_a_killed_redis_is_restarted_without_losing_inspections(
    client: httpx.Client, recipe: str, system: System
) -> None:
    system.child("valkey-server").kill()
    batch_id, *_ = submit(client, recipe, 3)
    assert completed(client, batch_id)["completed"] == 3


def test_a_killed_database_recovers_with_everything_that_was_accepted(
    client: httpx.Client, recipe: str, system: System
) -> None:
    batch_id, first, *_ = submit(client, recipe, 20)
    postgres = next(child for child in psutil.Process(system.process.pid).children() if "postgres" in child.name())
    postgres.kill()
    system.wait_until_ready()
    assert completed(client, batch_id)["completed"] == 20
    assert client.get(f"/v1/inspections/{first}").json()["status"] == "completed"


def test_a_killed_dispatcher_is_restarted(client: httpx.Client, recipe: str, system: System) -> None:
    killed = system.child("worker.dispatcher")
    killed.kill()
    batch_id, *_ = submit(client, recipe, 2)
    assert completed(client, batch_id)["completed"] == 2
    assert system.child("worker.dispatcher").pid != killed.pid


def test_images_of_a_killed_worker_are_scored_by_another(client: httpx.Client, recipe: str, system: System) -> None:
    worker = system.child("worker.scoring")
    batch_id, *ids = submit(client, recipe, 64)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # until it has claimed some of them
        if client.get(f"/v1/batches/{batch_id}").json()["counts"]["running"] > 0:
            break
    worker.kill()
    counts = completed(client, batch_id)
    assert (counts["completed"], counts["failed"]) == (64, 0)
    attempts = [client.get(f"/v1/inspections/{inspection_id}").json()["attempt"] for inspection_id in ids]
    assert max(attempts) <= 3


def test_a_damaged_image_store_is_detected(client: httpx.Client, recipe: str, system: System) -> None:
    worker = system.child("worker.scoring")
    worker.suspend()
    try:
        batch_id, damaged, removed, fine = submit(client, recipe, 3)
        for inspection_id, data in ((damaged, b"something else"), (removed, None)):
            inspection = client.get(f"/v1/inspections/{inspection_id}").json()
            file = (
                system.data / "store" / inspection["created_at"][:10].replace("-", "/") / inspection["image"]["sha256"]
            )
            if data is None:
                file.unlink()
            else:
                file.write_bytes(data)
                os.sync()
    finally:
        worker.resume()
    counts = completed(client, batch_id)
    assert (counts["completed"], counts["failed"]) == (1, 2)
    for inspection_id in (damaged, removed):
        error = client.get(f"/v1/inspections/{inspection_id}").json()["error"]
        assert error["code"] == "image_checksum_mismatch"
    assert client.get(f"/v1/inspections/{fine}").json()["verdict"] in ("ok", "ng")
