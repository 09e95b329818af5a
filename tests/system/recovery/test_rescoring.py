"""Runs in a system whose processes are killed."""

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
    """A folder of images below the default archive root of `linewatch up`."""
    folder = system.data / "archive" / "killed"
    folder.mkdir(exist_ok=True)
    for seed in range(IMAGES):
        (folder / f"{seed:04}.png").write_bytes(png(seed))
    return folder


def start(client: httpx.Client, recipe: str, version: int, **source: Any) -> str:
    body = {"recipe": recipe, "model_version": version, "source": source}
    answer = client.post("/v1/rescore-runs", json=body)
    assert answer.status_code == 201, answer.text
    run_id: str = answer.json()["id"]
    return run_id


def finished(client: httpx.Client, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 120
    while True:
        run: dict[str, Any] = client.get(f"/v1/rescore-runs/{run_id}", params={"wait": 20}).json()
        if run["status"] not in ("queued", "running"):
            return run
        assert time.monotonic() < deadline, run


def results(client: httpx.Client, run_id: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        query = {"limit": 100} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"/v1/rescore-runs/{run_id}/results", params=query).json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def test_each_image_has_one_result_despite_killed_processes(
    client: httpx.Client, recipe: str, system: System, archive: Path
) -> None:
    run_id = start(client, recipe, 1, folder=str(archive))
    for words in KILLED:
        time.sleep(1)
        system.child(words).kill()
    run = finished(client, run_id)
    assert (run["status"], run["counts"]["completed"], run["counts"]["failed"]) == ("completed", IMAGES, 0), run
    assert [result["number"] for result in results(client, run_id)] == list(range(1, IMAGES + 1))
    assert {result["path"] for result in results(client, run_id)} == {path.name for path in archive.iterdir()}


def test_inspections_are_scored_again_during_live_work(client: httpx.Client, recipe: str, another_bundle: Path) -> None:
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(40)]
    batch = client.post("/v1/batches", data={"recipe": recipe}, files=files).json()
    assert client.get(f"/v1/batches/{batch['id']}", params={"wait": 60}).json()["status"] == "completed"
    run_id = start(client, recipe, upload_bundle(client, recipe, another_bundle), where={"batch_id": batch["id"]})
    live = client.post("/v1/batches", data={"recipe": recipe}, files=files).json()
    assert client.get(f"/v1/batches/{live['id']}", params={"wait": 60}).json()["counts"]["completed"] == 40
    run = finished(client, run_id)
    assert (run["status"], run["counts"]["total"], run["counts"]["completed"]) == ("completed", 40, 40), run
    rescored = results(client, run_id)
    assert {result["inspection_id"] for result in rescored} == {result["id"] for result in batch["inspections"]}
    inspections = {
        inspection["id"]: inspection
        for inspection in client.get("/v1/inspections", params={"batch_id": batch["id"]}).json()["items"]
    }
    for result in rescored:
        before = inspections[result["inspection_id"]]
        assert before["model"]["version"] == 1  # the recorded result is unchanged
        assert result["before"]["anomaly_score"] == before["anomaly_score"]
        assert result["verdict"] == ("ng" if result["anomaly_score"] >= 0.5 else "ok")
