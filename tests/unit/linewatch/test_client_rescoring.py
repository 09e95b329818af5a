"""Re-scoring with both clients, against a scripted server."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from linewatch import Refused
from tests.fixtures.mock_system import RUN, ScriptedServer, problem

RUNS = "/v1/rescore-runs"
ABSENT_OF_RESULT = """
    path external_id part_id lot_id line_id captured_at image_sha256 review_threshold reviewed_verdict error
"""
RESULT: dict[str, Any] = {
    **dict.fromkeys(ABSENT_OF_RESULT.split()),
    "number": 1,
    "inspection_id": RUN["id"],
    "station_id": "S-1",
    "metadata": {},
    "before": {"anomaly_score": 0.4, "threshold": 0.5, "verdict": "ok", "model_version": 1},
    "anomaly_score": 0.6,
    "threshold": 0.5,
    "verdict": "ng",
    "flip": "ok_to_ng",
    "reasons": [],
    "scored_at": "2026-01-01T00:00:00Z",
}


def test_a_run_is_created_once_with_the_given_options(client: Callable[..., Any]) -> None:
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    server = ScriptedServer(problem(503, "busy", retry_after="0"), httpx.Response(201, json=RUN))
    with client(server) as lw:
        run = lw.rescore(
            "bottle",
            2,
            where={"lot_id": "L-1", "batch_id": UUID(RUN["id"]), "since": since, "max_age_hours": 36.0, "until": None},
            threshold=0.5,
            window="22:00-05:00",
        )
    assert (str(run.id), run.final) == (RUN["id"], False)
    first, second = server.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert json.loads(second.content) == {
        "recipe": "bottle",
        "model_version": 2,
        "source": {
            "where": {
                "lot_id": "L-1",
                "batch_id": RUN["id"],
                "since": "2026-01-01T00:00:00+00:00",
                "max_age_hours": 36.0,
            }
        },
        "recompute": False,
        "threshold": 0.5,
        "window": "22:00-05:00",
    }


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({"where": {}}, {"where": {}}),
        ({"where": {"ids": [UUID(RUN["id"]), "b"]}}, {"where": {"ids": [RUN["id"], "b"]}}),
        ({"folder": "/lots/a"}, {"folder": "/lots/a"}),
        ({"manifest": "m"}, {"manifest": "m"}),
    ],
)
def test_each_kind_of_source_is_sent(
    client: Callable[..., Any], options: dict[str, Any], source: dict[str, Any]
) -> None:
    server = ScriptedServer(httpx.Response(201, json=RUN))
    with client(server) as lw:
        lw.rescore("bottle", 2, **options)
    assert json.loads(server.requests[0].content)["source"] == source


def test_a_run_is_waited_for(client: Callable[..., Any]) -> None:
    completed = {**RUN, "status": "completed"}
    server = ScriptedServer(
        httpx.Response(201, json=RUN), httpx.Response(200, json=RUN), httpx.Response(200, json=completed)
    )
    with client(server) as lw:
        assert lw.rescore("bottle", 2, where={}, wait=50).final
    assert [request.url.path for request in server.requests] == [RUNS, f"{RUNS}/{RUN['id']}", f"{RUNS}/{RUN['id']}"]
    assert "wait" in server.requests[1].url.params


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_run_is_paused_resumed_and_cancelled_by_the_client(client: Callable[..., Any], verb: str) -> None:
    server = ScriptedServer(httpx.Response(200, json=RUN), problem(409, "invalid_transition"))
    with client(server) as lw:
        assert getattr(lw, f"{verb}_run")(RUN["id"]).status == "queued"
        with pytest.raises(Refused) as refused:
            getattr(lw, f"{verb}_run")(RUN["id"])
    assert refused.value.code == "invalid_transition"
    assert {(request.method, request.url.path) for request in server.requests} == {
        ("POST", f"{RUNS}/{RUN['id']}/{verb}")
    }


def test_runs_results_and_flips_are_read_page_by_page(client: Callable[..., Any]) -> None:
    def page(item: dict[str, Any], following: str | None) -> httpx.Response:
        return httpx.Response(200, json={"items": [item], "next_cursor": following})

    later = {**RESULT, "number": 2, "before": None, "flip": None}
    server = ScriptedServer(page(RUN, "c"), page(RUN, None), page(RESULT, "c"), page(later, None), page(RESULT, None))
    with client(server) as lw:
        assert [run.recipe for run in lw.rescore_runs(recipe="bottle", status="running")] == ["bottle", "bottle"]
        assert [result.number for result in lw.rescore_results(RUN["id"], verdict="ng", station_id="S-1")] == [1, 2]
        [flip] = lw.rescore_flips(RUN["id"], before="ok", after="ng")
    assert (flip.flip, flip.before.verdict) == ("ok_to_ng", "ok")
    runs, _, results, more, flips = [(request.url.path, dict(request.url.params)) for request in server.requests]
    assert runs == (RUNS, {"limit": "100", "recipe": "bottle", "status": "running"})
    assert results == (f"{RUNS}/{RUN['id']}/results", {"limit": "100", "verdict": "ng", "station_id": "S-1"})
    assert more[1] == {**results[1], "cursor": "c"}
    assert flips == (f"{RUNS}/{RUN['id']}/flips", {"limit": "100", "from": "ok", "to": "ng"})


def test_reports_and_exports_are_written_to_files(client: Callable[..., Any], tmp_path: Path) -> None:
    server = ScriptedServer(
        httpx.Response(200, json={"counts": {}}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, text="number\n"),
    )
    with client(server) as lw:
        assert lw.rescore_report(RUN["id"]) == {"counts": {}}
        page = lw.download_rescore_report(RUN["id"], tmp_path / "report.html")
        rows = lw.export_rescore_results(RUN["id"], tmp_path / "flips.csv", flips=True)
    assert (page.read_text(), rows.read_text()) == ("<html>", "number\n")
    assert [(request.url.path.rsplit("/")[-1], dict(request.url.params)) for request in server.requests] == [
        ("report", {}),
        ("report", {"format": "html"}),
        ("export", {"format": "csv", "flips": "true"}),
    ]
