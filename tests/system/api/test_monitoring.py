"""The state and the drift of a running system, from its real processes."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png

DEADLINE_SECONDS = 60


def eventually(read: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    """Read again and again until it holds, and return what was read."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_every_process_shows_what_it_does(client: httpx.Client, recipe: str) -> None:
    inspections = [submit(client, recipe, png(seed)) for seed in range(3)]
    for inspection in inspections:
        assert final(client, inspection["id"])["status"] == "completed"

    def workers() -> dict[str, Any]:
        return {worker["kind"]: worker for worker in client.get("/v1/system").json()["workers"]}

    def is_complete(found: dict[str, Any]) -> bool:
        loaded = [model["recipe"] for model in found.get("scoring", {}).get("models", [])]
        return found.keys() == {"scoring", "io", "training", "dispatcher"} and recipe in loaded

    found = eventually(workers, is_complete)
    assert {worker["state"] for worker in found.values()} == {"ready"}
    assert found["scoring"]["device"] == "cpu"
    assert 0 < found["scoring"]["minibatch_fill"] <= 1
    assert found["scoring"]["images_per_second"] > 0
    system = client.get("/v1/system").json()
    assert system["health"]["status"] in ("ok", "degraded")  # other tests share this system
    assert [queue["messages"] is not None for queue in system["queues"]] == [True] * 5


def test_finished_inspections_are_counted_within_seconds(client: httpx.Client, recipe: str) -> None:
    for seed in range(4):
        final(client, submit(client, recipe, png(seed), station_id="a")["id"])
    [day] = eventually(
        lambda: client.get(f"/v1/recipes/{recipe}/drift").raise_for_status().json()["days"],
        lambda days: bool(days) and days[0]["parts"] == 4,
    )
    assert sum(day["verdicts"].values()) == 4
    assert day["reasons"] == ["Not judged: 4 parts are fewer than 50."]
