"""The whole system with a bucket as its image store: from upload to verdict, heatmap and training, and a move."""

import time
from pathlib import Path

import httpx
import pytest

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System, upload_bundle
from tests.fixtures.s3_server import S3Server
from tests.fixtures.s3_server import s3 as s3
from tests.fixtures.s3_server import s3_server as s3_server

PNG = {"Content-Type": "image/png"}
TRAINING = {"architecture": "feature-gaussian", "input_size": 32, "false_reject_rate": 0.1}


def finished_training(http: httpx.Client) -> dict[str, object]:
    runs = "/v1/recipes/ring/training-runs"
    run_id = http.post(runs, json={"options": TRAINING}).json()["id"]
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(12)]
    http.post(f"{runs}/{run_id}/images", files=files).raise_for_status()
    http.post(f"{runs}/{run_id}/start").raise_for_status()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        run: dict[str, object] = http.get(f"{runs}/{run_id}", params={"wait": "20"}).json()
        if run["status"] in ("completed", "failed", "cancelled"):
            assert http.get(f"{runs}/{run_id}/report").status_code == 200
            return run
    raise AssertionError("the training did not end")


@pytest.mark.timeout(400)
def test_a_system_works_on_a_bucket(s3: S3Server, reachable_folder: Path, bundle: Path) -> None:
    folder = reachable_folder / "object-storage"
    folder.mkdir()
    store = {"LINEWATCH_STORE_URL": f"s3://{s3.bucket}/system", "LINEWATCH_TRAINING_NICENESS": "0", **s3.environment}
    with System.running(folder, **store) as system, httpx.Client(base_url=system.url, timeout=70) as http:
        http.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        upload_bundle(http, "ring", bundle)
        address = http.post("/v1/inspections?recipe=ring", content=png(1), headers=PNG).headers["Location"]
        assert http.get(f"{address}?wait=60").json()["status"] == "completed"
        assert http.get(f"{address}/image").content == png(1)
        assert http.get(f"{address}/heatmap").content.startswith(b"\x89PNG")
        assert http.get(f"{address}/thumbnail").content.startswith(b"\xff\xd8")
        assert http.get("/v1/recipes/ring/model-versions/1/bundle").status_code == 200
        assert http.get("/v1/system").json()["health"]["status"] == "ok"

        assert finished_training(http)["status"] == "completed"
    assert not (folder / "system" / "store").exists()
    assert [path for path in (folder / "system" / "scratch").rglob("*") if path.is_file()] == []
