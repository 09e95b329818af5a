"""`/v1/inspections` over HTTP: upload, wait, list, get."""

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import encoded, part, png
from tests.fixtures.running_system import System, upload_bundle


def test_a_raw_upload_gets_its_verdict(client: httpx.Client, recipe: str) -> None:
    data = png(1)
    accepted = submit(
        client, recipe, data, part_id="SN-1", lot_id="L", line_id="2", station_id="7", metadata='{"shift": "early"}',
        captured_at="2026-01-02T03:04:05+01:00", external_id="cam3_000812.png",
    )  # fmt: skip
    assert (accepted["status"], accepted["attempt"], accepted["verdict"]) == ("queued", 0, None)
    result = final(client, accepted["id"])
    assert result["status"] == "completed"
    assert result["anomaly_score"] > 0
    assert result["is_anomaly"] == (result["anomaly_score"] >= result["threshold"])
    assert result["verdict"] == result["effective_verdict"] == ("ng" if result["is_anomaly"] else "ok")
    assert result["captured_at"] == "2026-01-02T02:04:05Z"
    assert (result["part_id"], result["metadata"]) == ("SN-1", {"shift": "early"})
    assert result["image"] == {
        "sha256": hashlib.sha256(data).hexdigest(), "width": 96, "height": 64, "bytes": len(data),
        "media_type": "image/png",
    }  # fmt: skip
    assert result["model"]["version"] == 1
    assert result["timings_ms"].keys() == {"queue", "load", "decode", "score", "total"}
    assert (result["reasons"], result["error"], result["reviews"]) == ([], None, [])


def test_a_form_has_the_same_fields(client: httpx.Client, recipe: str) -> None:
    answer = client.post(
        "/v1/inspections",
        data={"recipe": recipe, "part_id": "Größe 7"},
        files={"image": ("ring.jpg", encoded(part(2), "JPEG"), "application/octet-stream")},
    )
    assert answer.status_code == 202, answer.text
    accepted = answer.json()
    assert (accepted["part_id"], accepted["external_id"]) == ("Größe 7", "ring.jpg")
    assert accepted["image"]["media_type"] == "image/jpeg"
    assert final(client, accepted["id"])["status"] == "completed"


def test_the_stored_image_is_the_one_that_was_sent(client: httpx.Client, recipe: str, system: System) -> None:
    data = png(3)
    accepted = submit(client, recipe, data)
    answer = client.get(f"/v1/inspections/{accepted['id']}/image")
    assert answer.content == data
    assert answer.headers["Content-Type"] == "image/png"
    day = accepted["created_at"][:10].replace("-", "/")
    assert (system.data / "store" / day / accepted["image"]["sha256"]).read_bytes() == data


def test_the_anomaly_map_has_the_score_as_its_mean(client: httpx.Client, recipe: str) -> None:
    result = final(client, submit(client, recipe, png(4))["id"])
    answer = client.get(f"/v1/inspections/{result['id']}/anomaly-map")
    anomaly_map = np.load(io.BytesIO(answer.content))
    assert (anomaly_map.dtype, anomaly_map.shape) == (np.float32, (128, 128))
    np.testing.assert_allclose(anomaly_map.mean(dtype=np.float64), result["anomaly_score"], rtol=1e-5)


def test_a_truncated_image_fails_alone(client: httpx.Client, recipe: str) -> None:
    whole = encoded(part(5, size=(400, 300)))
    ids = [submit(client, recipe, data)["id"] for data in (png(6), whole[: len(whole) // 2], png(7))]
    results = [final(client, inspection_id) for inspection_id in ids]
    assert [result["status"] for result in results] == ["completed", "failed", "completed"]
    broken = results[1]
    assert (broken["anomaly_score"], broken["verdict"], broken["is_anomaly"]) == (None, None, None)
    assert broken["error"]["code"] == "image_undecodable"
    assert broken["error"]["detail"]


def test_a_listing_is_filtered_and_paged(client: httpx.Client, recipe: str) -> None:
    ids = [submit(client, recipe, png(number), lot_id=f"L-{number % 2}")["id"] for number in range(7)]
    for inspection_id in ids:
        final(client, inspection_id)
    params: dict[str, str | int] = {"recipe": recipe, "lot_id": "L-0", "limit": 3}
    first = client.get("/v1/inspections", params=params).json()
    second = client.get("/v1/inspections", params={**params, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == ids[::-2]
    assert second["next_cursor"] is None
    assert client.get("/v1/inspections", params={"recipe": recipe, "status": "failed"}).json()["items"] == []
    for path in ("/v1/inspections", "/v1/inspections/export"):
        unknown = client.get(path, params={"recipe": "no-such-recipe"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "recipe_unknown")


def test_a_cancelled_inspection_stays_cancelled(client: httpx.Client) -> None:
    client.post("/v1/recipes", json={"name": "waiting-room", "without_model": "wait"})
    accepted = submit(client, "waiting-room", png(8))
    cancelled = client.post(f"/v1/inspections/{accepted['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert client.post(f"/v1/inspections/{accepted['id']}/cancel").json()["status"] == "cancelled"
    assert client.get(f"/v1/inspections/{accepted['id']}", params={"wait": 5}).json()["verdict"] is None


def test_a_final_inspection_cannot_be_cancelled(client: httpx.Client, recipe: str) -> None:
    finished = final(client, submit(client, recipe, png(9))["id"])
    answer = client.post(f"/v1/inspections/{finished['id']}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")


def test_inspections_waiting_for_a_model_are_scored_once_it_is_ready(client: httpx.Client, bundle: Path) -> None:
    client.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
    accepted = submit(client, "patient", png(10))
    assert client.get(f"/v1/inspections/{accepted['id']}", params={"wait": 1}).json()["status"] == "queued"
    upload_bundle(client, "patient", bundle)
    assert final(client, accepted["id"])["status"] == "completed"


def test_a_passed_deadline_is_a_failure(client: httpx.Client) -> None:
    client.post("/v1/recipes", json={"name": "too-late", "without_model": "wait"})
    accepted = submit(client, "too-late", png(11), deadline_ms="50")
    assert final(client, accepted["id"])["error"]["code"] == "deadline_exceeded"


def test_hundreds_of_waiting_clients_need_no_threads(client: httpx.Client, system: System) -> None:
    client.post("/v1/recipes", json={"name": "crowd", "without_model": "wait"})
    accepted = submit(client, "crowd", png(12))
    api = system.child("-m api")
    threads = []

    def wait(_: int) -> str:
        with httpx.Client(base_url=system.url, timeout=70) as http:
            status: str = http.get(f"/v1/inspections/{accepted['id']}", params={"wait": 30}).json()["status"]
            return status

    with ThreadPoolExecutor(200) as crowd:
        waiting = crowd.map(wait, range(200))
        for _ in range(20):
            threads.append(api.num_threads())
            client.get("/healthz")
        # All are answered at once, long before their 30 seconds are over.
        client.post(f"/v1/inspections/{accepted['id']}/cancel")
        assert set(waiting) == {"cancelled"}
    assert max(threads) < 80


def test_the_api_never_loads_torch(client: httpx.Client, recipe: str, system: System) -> None:
    final(client, submit(client, recipe, png(13))["id"])
    loaded = {Path(entry.path).name for entry in system.child("-m api").memory_maps()}
    assert not [name for name in loaded if "torch" in name]
    scoring = {Path(entry.path).name for entry in system.child("worker.scoring").memory_maps()}
    assert [name for name in scoring if "torch" in name]  # shows that the check above would find it


def test_the_openapi_document_describes_all_routes(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert {"/v1/inspections", "/v1/batches", "/predict", "/v1/recipes/{name}/model-versions"} <= described[
        "paths"
    ].keys()
    body = described["paths"]["/v1/inspections"]["post"]["requestBody"]["content"]
    assert {"image/png", "image/jpeg", "multipart/form-data"} <= body.keys()
    assert json.dumps(described)


def test_a_killed_api_is_restarted_with_everything_it_accepted(
    client: httpx.Client, recipe: str, system: System
) -> None:
    accepted = submit(client, recipe, png(14))
    psutil.Process(system.child("-m api").pid).kill()
    system.wait_until_ready()
    assert final(client, accepted["id"])["status"] == "completed"
