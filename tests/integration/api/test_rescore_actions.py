"""From a run to action, and challengers, over HTTP."""

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


def test_a_run_is_activated_behind_its_gate_and_rolled_back(engine: Engine, api: httpx.Client) -> None:
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
    done = api.post(f"/v1/rescore-runs/{run_id}/activate", json=GATE)
    assert (done.status_code, active(api)) == (200, 2), done.text
    answer = done.json()
    assert (answer["activated"], answer["model_version"]["version"], answer["model_version"]["active"]) == (
        True,
        2,
        True,
    )
    assert [one["met"] for one in answer["gate"]] == [True, True]
    assert (answer["run"]["id"], answer["run"]["activation"]["state"]) == (str(run_id), "active")
    again = api.post(f"/v1/rescore-runs/{run_id}/activate", json=GATE)
    assert (again.status_code, again.json()["code"]) == (409, "invalid_transition")
    assert "gate" not in again.json()
    back = api.post(f"/v1/rescore-runs/{run_id}/rollback")
    assert (back.status_code, active(api)) == (200, 1)
    assert (back.json()["activated"], back.json()["run"]["activation"]["state"]) == (False, "rolled_back")
    assert api.post(f"/v1/rescore-runs/{run_id}/rollback").json()["code"] == "invalid_transition"


@pytest.mark.parametrize("body", [{}, {"gate": {}}, {"gate": {"max_missed": 2}}, {"gate": {"max_mist": 0.1}}])
def test_a_gate_that_limits_nothing_is_wrong(engine: Engine, api: httpx.Client, body: dict[str, object]) -> None:
    answer = api.post(f"/v1/rescore-runs/{make_completed_run(engine)}/activate", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_a_challenger_is_set_shown_and_ended(api: httpx.Client) -> None:
    assert api.get(f"/v1/recipes/{RECIPE}").json()["challenger"] is None
    assert api.get(CHALLENGER).status_code == 404
    made = api.put(CHALLENGER, json={"model_version": 2, "share": 0.25})
    assert (made.status_code, made.headers["Location"]) == (201, f"/v1/rescore-runs/{made.json()['id']}")
    assert (made.json()["kind"], made.json()["model"]["version"]) == ("challenger", 2)
    assert made.json()["source"] == {"live": {"share": 0.25}}
    assert made.json()["counts"]["skipped"] == 0
    assert api.get(CHALLENGER).json()["id"] == made.json()["id"]
    shown = {"model_version": 2, "share": 0.25, "run_id": made.json()["id"]}
    assert api.get(f"/v1/recipes/{RECIPE}").json()["challenger"] == shown
    assert [one["challenger"] for one in api.get("/v1/recipes").json()["items"]] == [shown]
    another = api.put(CHALLENGER, json={"model_version": 3, "share": 0.25})
    assert (another.status_code, another.json()["code"]) == (409, "challenger_exists")
    ended = api.delete(CHALLENGER)
    assert (ended.status_code, ended.json()["id"], ended.json()["status"]) == (200, made.json()["id"], "completed")
    assert api.delete(CHALLENGER).status_code == 404
    active_one = api.put(CHALLENGER, json={"model_version": 1, "share": 0.25})
    assert (active_one.status_code, active_one.json()["code"]) == (409, "invalid_transition")
