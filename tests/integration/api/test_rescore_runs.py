"""Re-scoring runs over HTTP, without workers: create, list, wait, pause, resume and cancel."""

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
RUN_REQUEST: dict[str, Any] = {"recipe": RECIPE, "model_version": 2, "source": {"where": {}}}
UNKNOWN = "0193e0c8-0000-7000-8000-000000000000"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive root with a folder of one image."""
    lot = tmp_path / "archive" / "lot"
    lot.mkdir(parents=True)
    (lot / "one.png").write_bytes(png(1))
    return lot.parent


@pytest.fixture
def api(engine: Engine, settings: Settings, archive: Path) -> Iterator[httpx.Client]:
    make_versions(engine)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(archive)) as http:
        yield http


def test_a_run_is_created_shown_and_listed(api: httpx.Client) -> None:
    options = {"threshold": 0.5, "review_threshold": 0.4, "window": "22:00-05:00", "time_zone": "Europe/Berlin"}
    source = {"where": {"lot_id": "L-1", "verdict": "ok"}}
    answer = api.post(
        RUNS, json={**RUN_REQUEST, **options, "source": source, "recompute": True, "max_failure_rate": 0.02}
    )
    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert answer.headers["Location"] == f"{RUNS}/{run['id']}"
    assert {name: run[name] for name in options} == options
    assert (run["status"], run["kind"], run["recipe"], run["model"]["version"]) == ("queued", "archive", RECIPE, 2)
    assert (run["source"], run["recompute"], run["max_failure_rate"]) == (source, True, 0.02)
    assert (run["counts"]["total"], run["progress"]["done"], run["created_by"]) == (None, 0, "local")
    assert api.get(answer.headers["Location"]).json() == run
    second = api.post(RUNS, json=RUN_REQUEST).json()
    assert [run["id"] for run in api.get(RUNS).json()["items"]] == [second["id"], run["id"]]
    page = api.get(RUNS, params={"limit": 1, "recipe": RECIPE, "status": "queued"}).json()
    assert [run["id"] for run in page["items"]] == [second["id"]]
    rest = api.get(RUNS, params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert ([run["id"] for run in rest["items"]], rest["next_cursor"]) == ([run["id"]], None)
    assert api.get(RUNS, params={"status": "completed"}).json()["items"] == []


def test_one_idempotency_key_creates_one_run(engine: Engine, api: httpx.Client, archive: Path) -> None:
    body = {**RUN_REQUEST, "source": {"folder": str(archive / "lot")}}
    first = api.post(RUNS, json=body, headers={"Idempotency-Key": "night-1"})
    assert (first.status_code, "Idempotency-Replayed" in first.headers) == (201, False)
    assert first.json()["source"]["folder"].endswith("/archive/lot")
    (archive / "lot").rename(archive / "gone")  # a replay returns the first response even now
    assert api.post(f"{first.headers['Location']}/cancel").json()["status"] == "cancelled"
    again = api.post(RUNS, json=body, headers={"Idempotency-Key": "night-1"})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    other = api.post(RUNS, json={**body, "model_version": 3}, headers={"Idempotency-Key": "night-1"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(api.get(RUNS).json()["items"]) == 1


def test_a_key_is_free_again_after_a_refusal(api: httpx.Client) -> None:
    refused = api.post(RUNS, json={**RUN_REQUEST, "model_version": 9}, headers={"Idempotency-Key": "night-1"})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert api.post(RUNS, json=RUN_REQUEST, headers={"Idempotency-Key": "night-1"}).status_code == 201


def test_concurrent_requests_with_one_key_create_one_run(api: httpx.Client) -> None:
    answers: list[httpx.Response] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait()
        answers.append(api.post(RUNS, json=RUN_REQUEST, headers={"Idempotency-Key": "night-1"}))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
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


def test_an_invalid_body_is_refused_with_the_field_name(api: httpx.Client) -> None:
    for changes, names in WRONG:
        answer = api.post(RUNS, json={**RUN_REQUEST, **changes})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), changes
        assert names in answer.json()["detail"], changes


def test_unknown_recipes_versions_and_sources_are_refused(api: httpx.Client, archive: Path) -> None:
    def code(**changes: Any) -> tuple[int, str]:
        answer = api.post(RUNS, json={**RUN_REQUEST, **changes})
        return answer.status_code, answer.json()["code"]

    assert code(recipe="unknown") == (404, "recipe_unknown")
    assert code(model_version=9) == (404, "not_found")
    assert code(source={"folder": str(archive.parent)}) == (422, "source_refused")
    assert code(source={"folder": "lot/../../.."}) == (422, "source_refused")
    assert code(source={"manifest": "nothing.csv"}) == (422, "source_refused")
    assert api.get(RUNS).json()["items"] == []


def test_a_run_is_paused_resumed_and_cancelled(engine: Engine, api: httpx.Client) -> None:
    run = api.post(RUNS, json=RUN_REQUEST).json()

    def post_action(verb: str) -> tuple[int, str]:
        answer = api.post(f"{RUNS}/{run['id']}/{verb}")
        return answer.status_code, answer.json().get("status" if answer.status_code == 200 else "code")

    assert post_action("resume") == (409, "invalid_transition")
    assert post_action("pause") == (200, "paused")
    assert post_action("pause") == (409, "invalid_transition")
    assert post_action("resume") == (200, "queued")
    assert post_action("cancel") == (200, "cancelled")
    for verb in ("pause", "resume", "cancel"):
        assert post_action(verb) == (409, "invalid_transition")
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


def test_a_long_poll_is_answered_when_the_run_ends(engine: Engine, api: httpx.Client) -> None:
    run = api.post(RUNS, json=RUN_REQUEST).json()
    assert api.get(f"{RUNS}/{run['id']}", params={"wait": 0.1}).json()["status"] == "queued"
    answers: list[str] = []
    waiting = threading.Thread(
        target=lambda: answers.append(api.get(f"{RUNS}/{run['id']}", params={"wait": 60}).json()["status"])
    )
    waiting.start()
    api.post(f"{RUNS}/{run['id']}/cancel")
    waiting.join(30)
    assert answers == ["cancelled"]
    run_id = make_completed_run(engine)
    assert api.get(f"{RUNS}/{run_id}", params={"wait": 60}).json()["status"] == "completed"
    assert api.get(f"{RUNS}/{UNKNOWN}", params={"wait": 60}).status_code == 404
