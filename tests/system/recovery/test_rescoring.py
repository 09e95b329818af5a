"""Runs in a running system, whose processes are killed meanwhile."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System, upload_bundle

IMAGES = 300
KILLED = ("worker.scoring", "worker.io", "worker.dispatcher")


@pytest.fixture
def archive(system: System) -> Path:
    """Images below the root that `linewatch up` has by itself."""
    folder = system.data / "archive" / "killed"
    folder.mkdir(exist_ok=True)
    for seed in range(IMAGES):
        (folder / f"{seed:04}.png").write_bytes(png(seed))
    return folder


def start(client: httpx.Client, recipe: str, version: int, **source: Any) -> str:
    body = {"recipe": recipe, "model_version": version, "source": source}
    answer = client.post("/v1/rescore-runs", json=body)
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    return made


def finished(client: httpx.Client, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while True:
        run: dict[str, Any] = client.get(f"/v1/rescore-runs/{run_id}", params={"wait": 20}).json()
        if run["status"] not in ("queued", "running"):
            return run
        assert time.monotonic() < deadline, run


def results(client: httpx.Client, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/rescore-runs/{run_id}/results", params=query).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_each_image_has_one_result_whatever_is_killed(
    client: httpx.Client, recipe: str, system: System, archive: Path
) -> None:
    run_id = start(client, recipe, 1, folder=str(archive))
    for words in KILLED:
        time.sleep(1)
        system.child(words).kill()
    run = finished(client, run_id)
    assert (run["status"], run["counts"]["completed"], run["counts"]["failed"]) == ("completed", IMAGES, 0), run
    assert [one["number"] for one in results(client, run_id)] == list(range(1, IMAGES + 1))
    assert {one["path"] for one in results(client, run_id)} == {path.name for path in archive.iterdir()}


def test_inspections_are_scored_again_beside_the_line(client: httpx.Client, recipe: str, another_bundle: Path) -> None:
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(40)]
    batch = client.post("/v1/batches", data={"recipe": recipe}, files=files).json()
    assert client.get(f"/v1/batches/{batch['id']}", params={"wait": 60}).json()["status"] == "completed"
    run_id = start(client, recipe, upload_bundle(client, recipe, another_bundle), where={"batch_id": batch["id"]})
    live = client.post("/v1/batches", data={"recipe": recipe}, files=files).json()
    assert client.get(f"/v1/batches/{live['id']}", params={"wait": 60}).json()["counts"]["completed"] == 40
    run = finished(client, run_id)
    assert (run["status"], run["counts"]["total"], run["counts"]["completed"]) == ("completed", 40, 40), run
    found = results(client, run_id)
    assert {one["inspection_id"] for one in found} == {one["id"] for one in batch["inspections"]}
    inspections = {
        one["id"]: one for one in client.get("/v1/inspections", params={"batch_id": batch["id"]}).json()["items"]
    }
    for one in found:
        before = inspections[one["inspection_id"]]
        assert before["model"]["version"] == 1  # what was recorded stays
        assert one["before"]["anomaly_score"] == before["anomaly_score"]
        assert one["verdict"] == ("ng" if one["anomaly_score"] >= 0.5 else "ok")
