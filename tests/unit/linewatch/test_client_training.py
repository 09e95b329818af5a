"""Training runs with both clients, against a scripted server."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.mock_system import ScriptedServer, problem

RUNS = "/v1/recipes/ring/training-runs"
ABSENT = "stage done total stage_seconds seconds_left"
ABSENT_OF_RUN = "inspections reason elapsed_seconds result queued_at started_at finished_at"
RUN: dict[str, Any] = {
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c4",
    "status": "open",
    "recipe": "ring",
    "options": {},
    "compare": 500,
    "images": {},
    "progress": {**dict.fromkeys(ABSENT.split()), "notes": [], "curve": []},
    "attempt": 0,
    "created_by": "local",
    "created_at": "2026-01-01T00:00:00Z",
    **dict.fromkeys(ABSENT_OF_RUN.split()),
}
EPOCH = {"fold": None, "number": 1, "training_loss": 0.5, "validation_loss": None}
RUNNING = {
    **RUN,
    "status": "running",
    "progress": {**RUN["progress"], "stage": "training", "done": 1, "total": 4, "curve": [EPOCH]},
}
RESULT = {
    "model_version": 2, "model_state": "ready", "architecture": "memory-bank", "threshold": 0.5,
    "statement": ["Finds."], "fit_for_use": True, "reasons": [], "advice": [], "comparison": None,
}  # fmt: skip
COMPLETED = {**RUN, "status": "completed", "result": RESULT}


def test_a_run_is_created_once_with_the_given_options(client: Callable[..., Any]) -> None:
    server = ScriptedServer(problem(503, "busy", retry_after="0"), httpx.Response(201, json=RUN))
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    with client(server) as lw:
        run = lw.create_training("ring", options={"epochs": 3}, inspections={"good": "effective", "since": since})
    assert (str(run.id), run.final) == (RUN["id"], False)
    first, second = server.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert json.loads(second.content) == {
        "options": {"epochs": 3},
        "inspections": {"good": "effective", "since": "2026-01-01T00:00:00+00:00"},
    }


def test_many_images_are_added_in_several_requests(client: Callable[..., Any]) -> None:
    error = {"external_id": "3.png", "code": "unsupported_media_type", "detail": "No.", "status": 415}

    def added(number: int, total: int, errors: list[Any]) -> httpx.Response:
        return httpx.Response(
            200, json={"added": number, "duplicates": 1, "errors": errors, "images": {"test/scratch": total}}
        )

    server = ScriptedServer(added(199, 199, []), problem(503, "busy", retry_after="0"), added(99, 298, [error]))
    steps: list[int] = []
    with client(server) as lw:
        images = {f"{number}.png": b"%d" % number for number in range(300)}
        answer = lw.add_training_images("ring", RUN["id"], images, label="test/scratch", progress=steps.append)
        with pytest.raises(ValueError, match="no images"):
            lw.add_training_images("ring", RUN["id"], [])
    assert (answer.added, answer.duplicates, answer.errors) == (298, 2, [error])
    assert answer.images == {"test/scratch": 298}
    assert steps[-1] >= 300
    assert [request.url.path for request in server.requests] == [f"{RUNS}/{RUN['id']}/images"] * 3
    assert [body.count(b"filename=") for body in server.bodies] == [200, 100, 100]
    assert b'name="label"\r\n\r\ntest/scratch' in server.bodies[0]


def test_a_run_is_started_followed_and_cancelled(client: Callable[..., Any]) -> None:
    queued = {**RUN, "status": "queued"}
    server = ScriptedServer(*(httpx.Response(200, json=run) for run in (queued, RUNNING, COMPLETED, RUN)))
    with client(server) as lw:
        assert lw.start_training("ring", RUN["id"]).status == "queued"
        running, completed = lw.follow_training("ring", RUN["id"])
        lw.cancel_training("ring", RUN["id"])
    assert (running.progress.stage, running.progress.curve[0].training_loss) == ("training", 0.5)
    assert (completed.final, completed.result.model_version) == (True, 2)
    sent = [(request.method, request.url.path.removeprefix(f"{RUNS}/{RUN['id']}")) for request in server.requests]
    assert sent == [("POST", "/start"), ("GET", ""), ("GET", ""), ("POST", "/cancel")]


def test_runs_are_listed_and_a_report_is_written(client: Callable[..., Any], tmp_path: Path) -> None:
    pages = [httpx.Response(200, json={"items": [RUN], "next_cursor": cursor}) for cursor in ("c", None)]
    server = ScriptedServer(*pages, httpx.Response(200, text="<html>"))
    with client(server) as lw:
        assert [run.status for run in lw.training_runs("ring", status="open")] == ["open", "open"]
        assert lw.download_training_report("ring", RUN["id"], tmp_path / "report.html").read_text() == "<html>"
    assert [dict(request.url.params) for request in server.requests] == [
        {"limit": "20", "status": "open"},
        {"limit": "20", "status": "open", "cursor": "c"},
        {},
    ]
