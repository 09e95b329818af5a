"""The HTML report of a run, requested over HTTP and rendered by a worker."""

import io
import time
from pathlib import Path

import httpx
from PIL import Image

from tests.fixtures.html_pages import Page
from tests.fixtures.part_images import png
from tests.fixtures.running_system import upload_bundle


def test_the_report_of_a_run_shows_what_would_change(client: httpx.Client, recipe: str, another_bundle: Path) -> None:
    files = [("images", (f"{seed}.png", png(seed))) for seed in range(6)]
    assert client.post("/v1/batches", data={"recipe": recipe}, files=files).status_code == 202
    deadline = time.monotonic() + 60
    while len(client.get("/v1/inspections", params={"recipe": recipe, "status": "completed"}).json()["items"]) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    body = {
        "recipe": recipe,
        "model_version": upload_bundle(client, recipe, another_bundle),
        "source": {"where": {}},
        "threshold": 1e-9,
    }
    created = client.post("/v1/rescore-runs", json=body)
    assert created.status_code == 201, created.text
    path = f"/v1/rescore-runs/{created.json()['id']}"
    while client.get(path, params={"wait": 20}).json()["status"] in ("queued", "running"):
        assert time.monotonic() < deadline + 60
    answer = client.get(f"{path}/report", params={"format": "html"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    compared = client.get(f"{path}/report").json()["compared"]
    assert compared == 6
    flips = client.get(f"{path}/flips", params={"from": "ok", "to": "ng"}).json()["items"]
    assert answer.text.count("<figure>") == len(flips)
    assert len(page.sources) == 3 * len(flips) + (1 if flips else 0)  # three images per flip, and the scale
    assert client.get(f"{path}/report", params={"format": "html"}).content == answer.content  # from the store
    heatmap = client.get(f"{path}/results/1/heatmap")
    assert (heatmap.status_code, heatmap.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(heatmap.content)).size == (96, 64)
    assert client.get(f"{path}/results/7/heatmap").status_code == 404
