"""Activation and rollback of runs, and challengers, over HTTP."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

CHALLENGER = f"/v1/recipes/{RECIPE}/challenger"
GATE = {"gate": {"max_new_false_rejects": 0.01, "min_reviewed_ok": 50}}


@pytest.fixture
def api(engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    make_versions(engine)
    with running_api(settings) as http:
        yield http


def active(api: httpx.Client) -> int:
    version: int = api.get(f"/v1/recipes/{RECIPE}").json()["active_version"]
    return version


def test_a_run_that_meets_its_gate_is_activated_and_rolled_back(engine: Engine, api: httpx.Client) -> None:
    run_id = make_completed_run(engine, [ResultGroup("ok", "ok", "ok", 99), ResultGroup("ok", "ok", "ng", 1)])
    strict = api.post(f"/v1/rescore-runs/{run_id}/activate", json={"gate": {"max_new_false_rejects": 0.005}})
    assert (strict.status_code, strict.json()["code"], active(api)) == (409, "gate_not_met", 1)
    [rule] = strict.json()["gate"]
    assert (rule["rule"], rule["limit"], rule["measured"], rule["of"], rule["met"]) == (
        "max_new_false_rejects",
        0.005,
        0.01,
        100,
        False,
    )
    activated = api.post(f"/v1/rescore-runs/{run_id}/activate", json=GATE)
    assert (activated.status_code, active(api)) == (200, 2), activated.text
    answer = activated.json()
    assert (answer["activated"], answer["model_version"]["version"], answer["model_version"]["active"]) == (
        True,
        2,
        True,
    )
    assert [rule["met"] for rule in answer["gate"]] == [True, True]
    assert (answer["run"]["id"], answer["run"]["activation"]["state"]) == (str(run_id), "active")
    again = api.post(f"/v1/rescore-runs/{run_id}/activate", json=GATE)
    assert (again.status_code, again.json()["code"]) == (409, "invalid_transition")
    assert "gate" not in again.json()
    back = api.post(f"/v1/rescore-runs/{run_id}/rollback")
    assert (back.status_code, active(api)) == (200, 1)
    assert (back.json()["activated"], back.json()["run"]["activation"]["state"]) == (False, "rolled_back")
    assert api.post(f"/v1/rescore-runs/{run_id}/rollback").json()["code"] == "invalid_transition"


@pytest.mark.parametrize("body", [{}, {"gate": {}}, {"gate": {"max_missed": 2}}, {"gate": {"max_mist": 0.1}}])
def test_a_gate_without_limits_is_refused(engine: Engine, api: httpx.Client, body: dict[str, object]) -> None:
    answer = api.post(f"/v1/rescore-runs/{make_completed_run(engine)}/activate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_a_challenger_is_started_shown_and_ended(api: httpx.Client) -> None:
    assert api.get(f"/v1/recipes/{RECIPE}").json()["challenger"] is None
    assert api.get(CHALLENGER).status_code == 404
    created = api.put(CHALLENGER, json={"model_version": 2, "share": 0.25})
    assert (created.status_code, created.headers["Location"]) == (201, f"/v1/rescore-runs/{created.json()['id']}")
    assert (created.json()["kind"], created.json()["model"]["version"]) == ("challenger", 2)
    assert created.json()["source"] == {"live": {"share": 0.25}}
    assert created.json()["counts"]["skipped"] == 0
    assert api.get(CHALLENGER).json()["id"] == created.json()["id"]
    shown = {"model_version": 2, "share": 0.25, "run_id": created.json()["id"]}
    assert api.get(f"/v1/recipes/{RECIPE}").json()["challenger"] == shown
    assert [recipe["challenger"] for recipe in api.get("/v1/recipes").json()["items"]] == [shown]
    refused = api.put(CHALLENGER, json={"model_version": 3, "share": 0.25})
    assert (refused.status_code, refused.json()["code"]) == (409, "challenger_exists")
    ended = api.delete(CHALLENGER)
    assert (ended.status_code, ended.json()["id"], ended.json()["status"]) == (200, created.json()["id"], "completed")
    assert api.delete(CHALLENGER).status_code == 404
    active_one = api.put(CHALLENGER, json={"model_version": 1, "share": 0.25})
    assert (active_one.status_code, active_one.json()["code"]) == (409, "invalid_transition")


@pytest.mark.parametrize("way", ["activate", "rollback", "another run"])
def test_a_challenger_that_becomes_the_active_version_ends(engine: Engine, api: httpx.Client, way: str) -> None:
    run_id = make_completed_run(engine, [ResultGroup("ok", "ok", "ok", 100)])  # of version 2
    paths = {
        "activate": f"/v1/recipes/{RECIPE}/model-versions/2/activate",
        "rollback": f"/v1/recipes/{RECIPE}/model-versions/rollback",
        "another run": f"/v1/rescore-runs/{run_id}/activate",
    }
    if way == "rollback":
        for version in (2, 1, 3):
            api.post(f"/v1/recipes/{RECIPE}/model-versions/{version}/activate").raise_for_status()
    challenging = 1 if way == "rollback" else 2
    challenger = api.put(CHALLENGER, json={"model_version": challenging, "share": 0.25}).raise_for_status().json()
    answer = api.post(paths[way], json=GATE if way == "another run" else None)
    assert (answer.status_code, active(api)) == (200, challenging), answer.text
    assert api.get(CHALLENGER).status_code == 404
    assert api.get(f"/v1/recipes/{RECIPE}").json()["challenger"] is None
    assert api.get(f"/v1/rescore-runs/{challenger['id']}").json()["status"] == "completed"


def test_another_version_that_is_activated_leaves_the_challenger(api: httpx.Client) -> None:
    challenger = api.put(CHALLENGER, json={"model_version": 2, "share": 0.25}).raise_for_status().json()
    api.post(f"/v1/recipes/{RECIPE}/model-versions/3/activate").raise_for_status()
    assert api.get(CHALLENGER).json()["id"] == challenger["id"]
