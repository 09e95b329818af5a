"""A line that inspects washers, as it looks after two weeks: models, inspections, reviews, a run over the archive."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, create_engine, func, insert, null, select, text
from sqlalchemy.pool import NullPool

from core.tables import inspections
from tests.browser.washers import Defect, washer
from tests.fixtures.running_system import System

RECIPE = "washers"
DAYS = 13
_SUBMITTED = 96
_PATIENCE = 240  # seconds


@dataclass(frozen=True)
class Line:
    """The recipe of the line, and a rejected part of it that nobody has reviewed."""

    recipe: str
    rejected: dict[str, Any]


@pytest.fixture(scope="session")
def line(system: System) -> Iterator[Line]:
    with httpx.Client(base_url=system.url, timeout=90) as client:
        _ok(client.post("/v1/recipes", json={"name": RECIPE}))
        _train(client, "feature-gaussian")
        _set_threshold(client)
        _train(client, "memory-bank")
        _submit(client)
        _add_history(system)
        _rescore(client)
        _review(client)
        _ok(client.post("/v1/results/acknowledge", json={"consumer": "mes", "cursor": "now"}))
        rejected = _listed(client, effective_verdict="ng", reviewed="none", lot_id="L-204")[0]
        _wait_for_days(client)
        yield Line(RECIPE, rejected)


def _ok(answer: httpx.Response) -> dict[str, Any]:
    assert answer.is_success, answer.text
    document: dict[str, Any] = answer.json()
    return document


def _listed(client: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = _ok(client.get("/v1/inspections", params={"recipe": RECIPE, **filters}))["items"]
    return items


def _defect(seed: int) -> Defect | None:
    """One washer in sixteen is scratched, and one chipped."""
    return {3: "scratch", 11: "chip"}.get(seed % 16)  # type: ignore[return-value]


def _train(client: httpx.Client, architecture: str) -> None:
    """Train a version on good washers, and wait for it. The first one is activated by itself."""
    options = {"architecture": architecture, "input_size": 128, "seed": 1, "pose": "as-is"}
    run = _ok(client.post(f"/v1/recipes/{RECIPE}/training-runs", json={"options": options}))
    path = f"/v1/recipes/{RECIPE}/training-runs/{run['id']}"
    parts: dict[str, list[bytes]] = {
        "good": [washer(seed) for seed in range(1000, 1050)],
        "test/good": [washer(seed) for seed in range(2000, 2012)],
        "test/scratch": [washer(seed, "scratch") for seed in range(3000, 3006)],
        "test/chip": [washer(seed, "chip") for seed in range(4000, 4006)],
    }
    for label, images in parts.items():
        files = [("images", (f"{number:04}.png", image)) for number, image in enumerate(images)]
        _ok(client.post(f"{path}/images", files=files, data={"label": label}))
    _ok(client.post(f"{path}/start"))
    deadline = time.monotonic() + _PATIENCE
    while (run := _ok(client.get(path, params={"wait": 30})))["finished_at"] is None:
        assert time.monotonic() < deadline, run
    assert run["status"] == "completed", run["reason"]
    version = f"/v1/recipes/{RECIPE}/model-versions/{run['result']['model_version']}"
    while _ok(client.get(version))["state"] == "uploaded":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _submit(client: httpx.Client) -> None:
    names = [f"{seed:04}.png" for seed in range(_SUBMITTED)]
    files = [("images", (name, washer(seed, _defect(seed)))) for seed, name in enumerate(names)]
    items = {
        name: {
            "part_id": f"SN-{4700 + seed}",
            "lot_id": f"L-{204 + seed // 48}",
            "line_id": "line-1",
            "station_id": f"st-{7 + seed % 2}",
        }
        for seed, name in enumerate(names)
    }
    data = {"recipe": RECIPE, "items": json.dumps(items)}
    batch = _ok(client.post("/v1/batches", files=files, data=data))
    done = _ok(client.get(f"/v1/batches/{batch['id']}", params={"wait": 60}))
    assert done["status"] == "completed", done


def _add_history(system: System) -> None:
    """Repeat the inspections on each of the days before, with the same images and slowly rising scores."""
    url = system.child("-m api").environ()["LINEWATCH_DATABASE_URL"]
    engine: Engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for days in range(1, DAYS + 1):
            _repeat(connection, dt.timedelta(days=days), 1.12 - 0.012 * days)
        connection.execute(
            text("UPDATE activations SET activated_at = activated_at - :age"), {"age": dt.timedelta(days=DAYS + 1)}
        )


def _repeat(connection: Connection, age: dt.timedelta, factor: float) -> None:
    changed = {
        "id": func.uuidv7(-age),
        "created_at": inspections.c.created_at - age,
        "started_at": inspections.c.started_at - age,
        "finished_at": inspections.c.finished_at - age,
        "anomaly_score": inspections.c.anomaly_score * factor,
        "batch_id": null(),
    }
    today = inspections.c.batch_id.is_not(None)
    chosen = func.mod(func.abs(func.hashtext(inspections.c.part_id.concat(str(age)))), 10) < 8  # other parts each day
    names = [column.name for column in inspections.c]
    columns = [changed.get(column.name, column) for column in inspections.c]
    connection.execute(insert(inspections).from_select(names, select(*columns).where(today, chosen)))


def _set_threshold(client: httpx.Client) -> None:
    """Ask for a person a little below the threshold."""
    version = f"/v1/recipes/{RECIPE}/model-versions/1"
    threshold = _ok(client.get(version))["thresholds"][0]["threshold"]
    limits = {"threshold": threshold * 1.02, "review_threshold": threshold * 0.94, "reason": "after the audit of May"}
    _ok(client.post(f"{version}/threshold", json=limits))


def _rescore(client: httpx.Client) -> None:
    source = {"where": {"lot_id": "L-204", "max_age_hours": 20}}
    run = _ok(client.post("/v1/rescore-runs", json={"recipe": RECIPE, "model_version": 2, "source": source}))
    done = _ok(client.get(f"/v1/rescore-runs/{run['id']}", params={"wait": 60}))
    assert done["status"] == "completed", done


def _wait_for_days(client: httpx.Client) -> None:
    """Wait until the dispatcher has counted all days."""
    deadline = time.monotonic() + _PATIENCE
    while len(_ok(client.get(f"/v1/recipes/{RECIPE}/drift"))["days"]) <= DAYS:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _review(client: httpx.Client) -> None:
    for number, inspection in enumerate(_listed(client, verdict="ng", limit="4")):
        review = {
            "verdict": "ok" if number == 2 else "ng",
            "reviewer": "Ada Quality" if number % 2 else "Jo Shift",
            "reason": "a reflection" if number == 2 else "a real scratch",
        }
        _ok(client.post(f"/v1/inspections/{inspection['id']}/reviews", json=review))
