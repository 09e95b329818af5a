"""Re-scoring runs over HTTP: made, listed, waited for and steered. No worker is there."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.part_images import png
from tests.fixtures.rescore_runs import make_completed_run, make_versions

RUNS = "/v1/rescore-runs"
ASKED: dict[str, Any] = {"recipe": RECIPE, "model_version": 2, "source": {"where": {}}}
UNKNOWN = "0193e0c8-0000-7000-8000-000000000000"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A root of archives with a folder of one image."""
    lot = tmp_path / "archive" / "lot"
    lot.mkdir(parents=True)
    (lot / "one.png").write_bytes(png(1))
    return lot.parent


@pytest.fixture
def api(engine: Engine, settings: Settings, archive: Path) -> Iterator[httpx.Client]:
    make_versions(engine)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(archive)) as http:
        yield http


def test_a_run_is_made_shown_and_listed(api: httpx.Client) -> None:
    own = {"threshold": 0.5, "review_threshold": 0.4, "window": "22:00-05:00", "time_zone": "Europe/Berlin"}
    source = {"where": {"lot_id": "L-1", "verdict": "ok"}}
    made = api.post(RUNS, json={**ASKED, **own, "source": source, "recompute": True, "max_failure_rate": 0.02})
    assert made.status_code == 201, made.text
    run = made.json()
    assert made.headers["Location"] == f"{RUNS}/{run['id']}"
    assert {name: run[name] for name in own} == own
    assert (run["status"], run["kind"], run["recipe"], run["model"]["version"]) == ("queued", "archive", RECIPE, 2)
    assert (run["source"], run["recompute"], run["max_failure_rate"]) == (source, True, 0.02)
    assert (run["counts"]["total"], run["progress"]["done"], run["created_by"]) == (None, 0, "local")
    assert api.get(made.headers["Location"]).json() == run
    second = api.post(RUNS, json=ASKED).json()
    assert [one["id"] for one in api.get(RUNS).json()["items"]] == [second["id"], run["id"]]
    page = api.get(RUNS, params={"limit": 1, "recipe": RECIPE, "status": "queued"}).json()
    assert [one["id"] for one in page["items"]] == [second["id"]]
    rest = api.get(RUNS, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert ([one["id"] for one in rest["items"]], rest["next_cursor"]) == ([run["id"]], None)
    assert api.get(RUNS, params={"status": "completed"}).json()["items"] == []


def test_one_key_makes_one_run(engine: Engine, api: httpx.Client, archive: Path) -> None:
    asked = {**ASKED, "source": {"folder": str(archive / "lot")}}
    first = api.post(RUNS, json=asked, headers={"Idempotency-Key": "night-1"})
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    assert first.json()["source"]["folder"].endswith("/archive/lot")
    (archive / "lot").rename(archive / "gone")  # a replay is answered all the same, and as it was at first
    assert api.post(f"{first.headers['Location']}/cancel").json()["status"] == "cancelled"
    again = api.post(RUNS, json=asked, headers={"Idempotency-Key": "night-1"})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    other = api.post(RUNS, json={**asked, "model_version": 3}, headers={"Idempotency-Key": "night-1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(api.get(RUNS).json()["items"]) == 1


def test_a_key_is_free_again_after_a_refusal(api: httpx.Client) -> None:
    refused = api.post(RUNS, json={**ASKED, "model_version": 9}, headers={"Idempotency-Key": "night-1"})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert api.post(RUNS, json=ASKED, headers={"Idempotency-Key": "night-1"}).status_code == 201


def test_requests_under_one_key_at_once_make_one_run(api: httpx.Client) -> None:
    answers: list[httpx.Response] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        answers.append(api.post(RUNS, json=ASKED, headers={"Idempotency-Key": "night-1"}))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {one.status_code for one in answers} <= {201, 409}
    assert {one.json()["code"] for one in answers if one.status_code == 409} <= {"idempotency_in_flight"}
    assert len({one.json()["id"] for one in answers if one.status_code == 201}) == 1
    assert len(api.get(RUNS).json()["items"]) == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"source": {}}, "source"),
    ({"source": {"where": {}, "folder": "lot"}}, "source"),
    ({"source": {"where": {"lot": "L-1"}}}, "source.where.lot"),
    ({"source": {"where": {"verdict": "bad"}}}, "source.where.verdict"),
    ({"model_version": 0}, "model_version"),
    ({"recipe": ""}, "recipe"),
    ({"threshold": "nan"}, "threshold"),
    ({"review_threshold": 0.4}, "review_threshold"),
    ({"threshold": 0.4, "review_threshold": 0.5}, "review_threshold"),
    ({"window": "22:00"}, "window"),
    ({"window": "22:00-05:00", "time_zone": "Mars/Base"}, "Mars/Base"),
    ({"max_failure_rate": 1.5}, "max_failure_rate"),
    ({"max_failures": 3}, "max_failures"),
    ({"source": {"where": {"recipe": "another"}}}, "source.where.recipe"),
]


def test_a_wrong_body_is_refused_by_the_field_name(api: httpx.Client) -> None:
    for changes, names in WRONG:
        answer = api.post(RUNS, json={**ASKED, **changes})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), changes
        assert names in answer.json()["detail"], changes


def test_what_cannot_be_scored_again_is_refused(api: httpx.Client, archive: Path) -> None:
    def code(**changes: Any) -> tuple[int, str]:
        answer = api.post(RUNS, json={**ASKED, **changes})
        return answer.status_code, answer.json()["code"]

    assert code(recipe="unknown") == (404, "recipe_unknown")
    assert code(model_version=9) == (404, "not_found")
    assert code(source={"folder": str(archive.parent)}) == (422, "source_refused")
    assert code(source={"folder": "lot/../../.."}) == (422, "source_refused")
    assert code(source={"manifest": "nothing.csv"}) == (422, "source_refused")
    assert api.get(RUNS).json()["items"] == []


def test_a_run_is_paused_resumed_and_cancelled(engine: Engine, api: httpx.Client) -> None:
    run = api.post(RUNS, json=ASKED).json()

    def said(verb: str) -> tuple[int, str]:
        answer = api.post(f"{RUNS}/{run['id']}/{verb}")
        return answer.status_code, answer.json().get("status" if answer.status_code == 200 else "code")

    assert said("resume") == (409, "invalid_transition")
    assert said("pause") == (200, "paused")
    assert said("pause") == (409, "invalid_transition")
    assert said("resume") == (200, "queued")
    assert said("cancel") == (200, "cancelled")
    for verb in ("pause", "resume", "cancel"):
        assert said(verb) == (409, "invalid_transition")
        assert api.post(f"{RUNS}/{UNKNOWN}/{verb}").status_code == 404
    with engine.begin() as connection:
        actions = connection.execute(
            text("SELECT action, actor FROM audit_events WHERE subject = :subject ORDER BY id"),
            {"subject": f"rescore_run:{run['id']}"},
        ).all()
    assert [action for action, _ in actions] == [
        f"rescore_run.{verb}" for verb in ("created", "paused", "resumed", "cancelled")
    ]
    assert {actor for _, actor in actions} == {"local"}


def test_who_waits_is_answered_when_the_run_ends(engine: Engine, api: httpx.Client) -> None:
    run = api.post(RUNS, json=ASKED).json()
    assert api.get(f"{RUNS}/{run['id']}", params={"wait": 0.1}).json()["status"] == "queued"
    answers: list[str] = []
    waiting = threading.Thread(
        target=lambda: answers.append(api.get(f"{RUNS}/{run['id']}", params={"wait": 60}).json()["status"])
    )
    waiting.start()
    api.post(f"{RUNS}/{run['id']}/cancel")
    waiting.join(30)
    assert answers == ["cancelled"]
    done = make_completed_run(engine)
    assert api.get(f"{RUNS}/{done}", params={"wait": 60}).json()["status"] == "completed"
    assert api.get(f"{RUNS}/{UNKNOWN}", params={"wait": 60}).status_code == 404
