"""Re-scoring from Python, both faces, against a system that is played."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from linewatch import Refused
from tests.fixtures.mock_system import FACES, RUN, Played, problem

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


@pytest.fixture(params=FACES)
def client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes clients of a played system, of each face."""

    def make(played: Played) -> Any:
        return FACES[request.param]("http://system.test", transport=httpx.MockTransport(played))

    return make


def test_a_run_is_asked_for_once_with_what_was_given(client: Callable[..., Any]) -> None:
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    played = Played(problem(503, "busy", retry_after="0"), httpx.Response(201, json=RUN))
    with client(played) as lw:
        made = lw.rescore(
            "bottle",
            2,
            where={"lot_id": "L-1", "batch_id": UUID(RUN["id"]), "since": since, "max_age_hours": 36.0, "until": None},
            threshold=0.5,
            window="22:00-05:00",
        )
    assert (str(made.id), made.final) == (RUN["id"], False)
    first, second = played.requests
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
    ("given", "source"),
    [
        ({"where": {}}, {"where": {}}),
        ({"folder": "/lots/a"}, {"folder": "/lots/a"}),
        ({"manifest": "m"}, {"manifest": "m"}),
    ],
)
def test_each_source_is_named(client: Callable[..., Any], given: dict[str, Any], source: dict[str, Any]) -> None:
    played = Played(httpx.Response(201, json=RUN))
    with client(played) as lw:
        lw.rescore("bottle", 2, **given)
    assert json.loads(played.requests[0].content)["source"] == source


def test_a_run_is_waited_for(client: Callable[..., Any]) -> None:
    done = {**RUN, "status": "completed"}
    played = Played(httpx.Response(201, json=RUN), httpx.Response(200, json=RUN), httpx.Response(200, json=done))
    with client(played) as lw:
        assert lw.rescore("bottle", 2, where={}, wait=50).final
    assert [one.url.path for one in played.requests] == [RUNS, f"{RUNS}/{RUN['id']}", f"{RUNS}/{RUN['id']}"]
    assert "wait" in played.requests[1].url.params


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_run_is_steered(client: Callable[..., Any], verb: str) -> None:
    played = Played(httpx.Response(200, json=RUN), problem(409, "invalid_transition"))
    with client(played) as lw:
        assert getattr(lw, f"{verb}_run")(RUN["id"]).status == "queued"
        with pytest.raises(Refused) as refused:
            getattr(lw, f"{verb}_run")(RUN["id"])
    assert refused.value.code == "invalid_transition"
    assert {(one.method, one.url.path) for one in played.requests} == {("POST", f"{RUNS}/{RUN['id']}/{verb}")}


def test_runs_results_and_flips_come_page_by_page(client: Callable[..., Any]) -> None:
    def page(one: dict[str, Any], following: str | None) -> httpx.Response:
        return httpx.Response(200, json={"items": [one], "next_cursor": following})

    later = {**RESULT, "number": 2, "before": None, "flip": None}
    played = Played(page(RUN, "c"), page(RUN, None), page(RESULT, "c"), page(later, None), page(RESULT, None))
    with client(played) as lw:
        assert [one.recipe for one in lw.rescore_runs(recipe="bottle", status="running")] == ["bottle", "bottle"]
        assert [one.number for one in lw.rescore_results(RUN["id"], verdict="ng", station_id="S-1")] == [1, 2]
        [flip] = lw.rescore_flips(RUN["id"], before="ok", after="ng")
    assert (flip.flip, flip.before.verdict) == ("ok_to_ng", "ok")
    runs, _, results, more, flips = [(one.url.path, dict(one.url.params)) for one in played.requests]
    assert runs == (RUNS, {"limit": "100", "recipe": "bottle", "status": "running"})
    assert results == (f"{RUNS}/{RUN['id']}/results", {"limit": "100", "verdict": "ng", "station_id": "S-1"})
    assert more[1] == {**results[1], "cursor": "c"}
    assert flips == (f"{RUNS}/{RUN['id']}/flips", {"limit": "100", "from": "ok", "to": "ng"})


def test_reports_and_exports_become_files(client: Callable[..., Any], tmp_path: Path) -> None:
    played = Played(
        httpx.Response(200, json={"counts": {}}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, text="number\n"),
    )
    with client(played) as lw:
        assert lw.rescore_report(RUN["id"]) == {"counts": {}}
        page = lw.download_rescore_report(RUN["id"], tmp_path / "report.html")
        rows = lw.export_rescore_results(RUN["id"], tmp_path / "flips.csv", flips=True)
    assert (page.read_text(), rows.read_text()) == ("<html>", "number\n")
    assert [(one.url.path.rsplit("/")[-1], dict(one.url.params)) for one in played.requests] == [
        ("report", {}),
        ("report", {"format": "html"}),
        ("export", {"format": "csv", "flips": "true"}),
    ]
