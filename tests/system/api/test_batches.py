"""`/v1/batches`: bursts, open batches, and a thousand images despite a killed worker."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

BURST = 1000
CLIENTS = 64


def images(number: int) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (f"{seed:03}.png", png(seed))) for seed in range(number)]


def test_a_burst_becomes_a_batch_with_common_and_individual_fields(client: httpx.Client, recipe: str) -> None:
    items = {"001.png": {"part_id": "SN-1", "metadata": {"view": "top"}}, "002.png": {"external_id": "named"}}
    answer = client.post(
        "/v1/batches", data={"recipe": recipe, "lot_id": "L-9", "items": json.dumps(items)}, files=images(4)
    )
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["Location"] == f"/v1/batches/{batch['id']}"
    assert (batch["status"], batch["counts"]["total"], batch["errors"]) == ("running", 4, [])
    assert [inspection["external_id"] for inspection in batch["inspections"]] == [
        "000.png",
        "001.png",
        "named",
        "003.png",
    ]
    assert {inspection["lot_id"] for inspection in batch["inspections"]} == {"L-9"}
    assert batch["inspections"][1]["part_id"] == "SN-1"
    assert batch["inspections"][1]["metadata"] == {"view": "top"}
    final = client.get(f"/v1/batches/{batch['id']}", params={"wait": 60}).json()
    assert final["status"] == "completed"
    assert final["counts"]["completed"] == final["counts"]["ok"] + final["counts"]["ng"] == 4
    listed = client.get("/v1/inspections", params={"batch_id": batch["id"]}).json()["items"]
    assert {inspection["id"] for inspection in listed} == {inspection["id"] for inspection in batch["inspections"]}


@pytest.mark.parametrize(
    "opened_with", [{}, {"json": {}}, {"files": {"note": (None, "x")}}], ids=["none", "json", "form"]
)
def test_an_open_batch_is_filled_and_closed(client: httpx.Client, recipe: str, opened_with: dict[str, object]) -> None:
    answer = client.post("/v1/batches", **opened_with)  # type: ignore[arg-type]
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert (batch["status"], batch["inspections"]) == ("open", [])
    params = {"recipe": recipe, "batch_id": batch["id"]}
    for seed in range(2):
        put = client.post("/v1/inspections", params=params, content=png(seed), headers={"Content-Type": "image/png"})
        assert put.json()["batch_id"] == batch["id"]
        client.get(put.headers["Location"], params={"wait": 60})
    assert client.get(f"/v1/batches/{batch['id']}").json()["status"] == "open"
    closed = client.post(f"/v1/batches/{batch['id']}/close").json()
    assert (closed["status"], closed["counts"]["completed"]) == ("completed", 2)
    late = client.post("/v1/inspections", params=params, content=png(3), headers={"Content-Type": "image/png"})
    assert (late.status_code, late.json()["code"]) == (409, "invalid_transition")


def test_a_cancelled_batch_stays_cancelled(client: httpx.Client) -> None:
    client.post("/v1/recipes", json={"name": "never", "without_model": "wait"})
    batch = client.post("/v1/batches", data={"recipe": "never"}, files=images(3)).json()
    cancelled = client.post(f"/v1/batches/{batch['id']}/cancel").json()
    assert (cancelled["status"], cancelled["counts"]["cancelled"]) == ("cancelled", 3)
    answer = client.post(f"/v1/batches/{batch['id']}/close")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")


def test_a_thousand_images_of_64_clients_survive_a_killed_worker(
    client: httpx.Client, recipe: str, system: System
) -> None:
    images = [png(seed) for seed in range(50)]
    numbers = count()
    accepted: list[str] = []
    begun = threading.Event()

    def station(_: int) -> None:
        with httpx.Client(base_url=system.url, timeout=60) as http:
            while (number := next(numbers)) < BURST:
                answer = http.post(
                    "/v1/inspections",
                    params={"recipe": recipe, "part_id": f"part-{number}"},
                    content=images[number % len(images)],
                    headers={"Content-Type": "image/png"},
                )
                assert answer.status_code == 202, answer.text
                accepted.append(answer.json()["id"])
                if len(accepted) > BURST // 3:
                    begun.set()

    with ThreadPoolExecutor(CLIENTS) as stations:
        running = [stations.submit(station, number) for number in range(CLIENTS)]
        assert begun.wait(60)
        system.child("worker.scoring").kill()
        for future in running:
            future.result()

    assert len(set(accepted)) == BURST
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        in_flight = [
            client.get("/v1/inspections", params={"recipe": recipe, "status": status, "limit": 1}).json()["items"]
            for status in ("queued", "running")
        ]
        if not any(in_flight):
            break
        time.sleep(0.5)
    statuses: Counter[str] = Counter()
    parts: set[str] = set()
    cursor = None
    while True:
        page = client.get(
            "/v1/inspections", params={"recipe": recipe, "limit": 500, **({"cursor": cursor} if cursor else {})}
        ).json()
        statuses.update(item["status"] for item in page["items"])
        parts |= {item["part_id"] for item in page["items"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert statuses == {"completed": BURST}
    assert len(parts) == BURST
