"""Schedules over HTTP, from Python and on the command line."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.rescoring import schedules
from core.settings import Settings
from linewatch import Refused
from linewatch.cli import failures, run
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.mock_system import CLIENTS
from tests.fixtures.rescore_runs import make_versions

NIGHTLY: dict[str, Any] = {
    "name": "nightly",
    "cron": "30 22 * * 1-5",
    "time_zone": "Europe/Berlin",
    "run": {"recipe": RECIPE, "model_version": 2, "source": {"where": {"max_age_hours": 24}}},
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder below an archive root."""
    folder = tmp_path / "archive" / "lot"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def http(engine: Engine, settings: Settings, archive: Path) -> Iterator[httpx.Client]:
    make_versions(engine)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(archive.parent)) as client:
        yield client


def test_a_schedule_is_created_read_changed_and_deleted(http: httpx.Client, engine: Engine) -> None:
    answer = http.post("/v1/rescore-schedules", json=NIGHTLY)
    assert answer.status_code == 201
    schedule = answer.json()
    assert answer.headers["Location"] == f"/v1/rescore-schedules/{schedule['id']}"
    assert {name: schedule[name] for name in NIGHTLY} == NIGHTLY
    assert (schedule["state"], schedule["last"], schedule["created_by"]) == ("enabled", None, "local")
    path = answer.headers["Location"]
    assert http.get(path).json() == schedule
    assert http.get("/v1/rescore-schedules").json() == {"items": [schedule]}
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_schedules SET next_at = now() - interval '1 minute'"))
        [run_id] = schedules.start_due(connection)
    last = http.get(path).json()["last"]
    assert (last["run_id"], last["outcome"]) == (str(run_id), "started")
    made_run = http.get(f"/v1/rescore-runs/{run_id}").json()
    assert (made_run["schedule_id"], made_run["created_by"]) == (schedule["id"], "schedule:nightly")
    since = dt.datetime.fromisoformat(made_run["source"]["where"]["since"])
    assert dt.datetime.fromisoformat(made_run["created_at"]) - since == dt.timedelta(hours=24)
    rests = http.patch(path, json={"state": "disabled"}).json()
    assert (rests["state"], rests["next_at"], rests["last"]) == ("disabled", None, last)
    other = {"recipe": RECIPE, "source": {"where": {}}, "threshold": 0.3}
    changed = http.patch(path, json={"state": "enabled", "cron": "0 3 * * *", "time_zone": "UTC", "run": other}).json()
    assert (changed["run"], changed["cron"]) == (other, "0 3 * * *")
    assert dt.datetime.fromisoformat(changed["next_at"]).hour == 3
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == http.delete(path).status_code == 404
    assert http.get(f"/v1/rescore-runs/{run_id}").status_code == 200


def test_an_invalid_schedule_is_refused_with_the_field(http: httpx.Client) -> None:
    def refusal(**changes: Any) -> tuple[int, str, str]:
        answer = http.post("/v1/rescore-schedules", json={**NIGHTLY, **changes})
        return answer.status_code, answer.json()["code"], answer.json()["detail"]

    wrong = [{"cron": "at night"}, {"cron": "0 0 30 2 *"}, {"time_zone": "Berlin"}, {"name": ""}, {"state": "off"}]
    for changes in wrong:
        [field] = changes
        status, code, detail = refusal(**changes)
        assert (status, code) == (422, "invalid_field")
        assert detail.startswith(f"{field}: ")
    run = NIGHTLY["run"]
    assert refusal(run={**run, "window": "22-05"})[:2] == (422, "invalid_field")
    assert refusal(run={**run, "recipe": "unknown"})[:2] == (404, "recipe_unknown")
    assert refusal(run={**run, "model_version": 9})[:2] == (404, "not_found")
    assert refusal(run={**run, "source": {"folder": "../else"}})[:2] == (422, "source_refused")
    assert http.post("/v1/rescore-schedules", json=NIGHTLY).status_code == 201
    assert refusal()[:2] == (409, "schedule_exists")
    assert len(http.get("/v1/rescore-schedules").json()["items"]) == 1


def test_the_folder_of_a_schedule_is_checked_on_creation(http: httpx.Client, archive: Path) -> None:
    run = {"recipe": RECIPE, "source": {"folder": "lot"}}
    schedule = http.post("/v1/rescore-schedules", json={**NIGHTLY, "run": run}).json()
    assert schedule["run"]["source"] == {"folder": archive.as_uri()}
    changed = http.patch(f"/v1/rescore-schedules/{schedule['id']}", json={"run": {**run, "source": {"folder": "none"}}})
    assert (changed.status_code, changed.json()["code"]) == (422, "source_refused")


@pytest.mark.parametrize("kind", CLIENTS)
def test_both_clients_support_all_operations(http: httpx.Client, kind: str) -> None:
    with CLIENTS[kind](str(http.base_url)) as lw:
        schedule = lw.create_rescore_schedule(
            "nightly",
            RECIPE,
            cron="0 22 * * *",
            time_zone="Europe/Berlin",
            where={"lot_id": "L-1"},
            window="22:00-05:00",
        )
        assert schedule.run == {
            "recipe": RECIPE,
            "source": {"where": {"lot_id": "L-1"}},
            "window": "22:00-05:00",
            "time_zone": "Europe/Berlin",
        }
        assert lw.rescore_schedules() == [schedule]
        assert lw.rescore_schedule(schedule.id) == schedule
        assert lw.change_rescore_schedule(schedule.id, state="disabled").next_at is None
        lw.delete_rescore_schedule(schedule.id)
        with pytest.raises(Refused):
            lw.rescore_schedule(schedule.id)


def test_the_command_creates_lists_and_removes_schedules(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
    command = ["rescore", "schedules"]
    create = [
        *command,
        "create",
        "nightly",
        "--recipe",
        RECIPE,
        "--cron",
        "30 22 * * *",
        "--time-zone",
        "Europe/Berlin",
    ]
    assert run(create) == failures.WRONG_USE
    assert "one of --all, --where, --folder and --manifest" in capsys.readouterr().err
    options = ["--where", "lot=L-1", "--where", "max_age=7d", "--window", "22:00-05:00", "--max-failure-rate", "0.2"]
    assert run([*create, *options, "--threshold", "0.4", "--review-threshold", "0.3", "--recompute", "--json"]) == 0
    schedule = json.loads(capsys.readouterr().out)
    assert schedule["run"] == {
        "recipe": RECIPE,
        "source": {"where": {"lot_id": "L-1", "max_age_hours": 168}},
        "threshold": 0.4,
        "review_threshold": 0.3,
        "recompute": True,
        "window": "22:00-05:00",
        "time_zone": "Europe/Berlin",
        "max_failure_rate": 0.2,
    }
    assert run([*create, "--all"]) == failures.FAILED
    assert "There is a schedule 'nightly' already" in capsys.readouterr().err
    assert run([*command, "list"]) == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nightly")]
    assert "newest" in row
    assert "30 22 * * *" in row
    assert run([*command, "change", "nightly"]) == failures.WRONG_USE
    assert "--cron or --time-zone" in capsys.readouterr().err
    assert run([*command, "change", "nightly", "--cron", "15 3 * * *", "--time-zone", "Asia/Tokyo", "--json"]) == 0
    changed = json.loads(capsys.readouterr().out)
    assert (changed["cron"], changed["time_zone"]) == ("15 3 * * *", "Asia/Tokyo")
    assert changed["run"] == {**schedule["run"], "time_zone": "Asia/Tokyo"}
    assert run([*command, "disable", "nightly"]) == 0
    assert "is disabled" in capsys.readouterr().err
    assert run([*command, "enable", schedule["id"]]) == 0
    assert "starts its next run at" in capsys.readouterr().err
    assert run([*command, "show", "nightly"]) == 0
    assert "Asia/Tokyo" in capsys.readouterr().out
    assert run([*command, "remove", "nightly"]) == 0
    assert run([*command, "remove", "nightly"]) == failures.FAILED
    assert run([*command, "list", "--json"]) == 0
    assert capsys.readouterr().out == ""
