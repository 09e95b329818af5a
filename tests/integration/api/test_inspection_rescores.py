"""`GET /v1/inspections/{id}/rescores`: what runs and challengers found for an inspection."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import Connection, Engine, text

from core.rescoring import challengers, runs
from core.rescoring.requests import RunRequest
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE, finish_inspections
from tests.fixtures.rescore_runs import make_versions


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def rescored(engine: Engine, inspection_id: UUID, number: int, version: int, **columns: Any) -> str:
    """Create a run that has a result for an inspection, and return its id."""
    request = RunRequest.model_validate({"recipe": RECIPE, "model_version": version, "source": {"where": {}}})
    with engine.begin() as connection:
        run_id = runs.create(connection, request, actor="test").id
        _add(connection, run_id, inspection_id, number, columns)
    return str(run_id)


def _add(connection: Connection, run_id: UUID, inspection_id: UUID, number: int, columns: Any) -> None:
    values = {"run_id": run_id, "number": number, "inspection_id": inspection_id, **columns}
    names, parameters = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO rescore_results ({names}) VALUES ({parameters})"), values)  # noqa: S608


def test_the_history_has_each_run_and_challenger(http: httpx.Client, engine: Engine) -> None:
    make_versions(engine)
    inspection_id, other = finish_inspections(engine, 2)
    before = {"before_verdict": "ok", "before_score": 0.1, "before_threshold": 0.5}
    scored = {"anomaly_score": 0.7, "threshold": 0.6, "review_threshold": 0.4, "verdict": "ng"}
    first = rescored(engine, inspection_id, 7, 2, **before, **scored)
    second = rescored(engine, inspection_id, 1, 3, error_code="image_missing", error_detail="It is gone.")
    rescored(engine, other, 2, 2, **scored)
    with engine.begin() as connection:
        challenger = challengers.create(connection, RECIPE, 2, share=0.5, actor="test")
        _add(connection, challenger.id, inspection_id, 3, {**before, **scored, "verdict": "review"})

    page = http.get(f"/v1/inspections/{inspection_id}/rescores").json()
    assert page["next_cursor"] is None
    assert [item["run_id"] for item in page["items"]] == [str(challenger.id), second, first]
    newest, failed, oldest = page["items"]
    assert (newest["kind"], newest["run_status"], newest["flip"]) == ("challenger", "queued", "ok_to_review")
    assert (failed["model"]["version"], failed["before"], failed["verdict"]) == (3, None, None)
    assert failed["error"] == {"code": "image_missing", "detail": "It is gone."}
    assert oldest.pop("scored_at")
    assert oldest == {
        "run_id": first,
        "kind": "archive",
        "run_status": "queued",
        "model": {"version": 2, "sha256": (b"\2" * 32).hex()},
        "number": 7,
        "anomaly_score": 0.7,
        "threshold": 0.6,
        "review_threshold": 0.4,
        "verdict": "ng",
        "before": {"anomaly_score": 0.1, "threshold": 0.5, "verdict": "ok", "model_version": None},
        "flip": "ok_to_ng",
        "reasons": [],
        "error": None,
    }


def test_pages_follow_each_other(http: httpx.Client, engine: Engine) -> None:
    make_versions(engine)
    [inspection_id] = finish_inspections(engine, 1)
    run_ids = [
        rescored(engine, inspection_id, 1, 2, anomaly_score=number / 10, threshold=0.5, verdict="ok")
        for number in range(5)
    ]
    path, seen, cursor = f"/v1/inspections/{inspection_id}/rescores", [], None
    while True:
        page = http.get(path, params={"limit": "2", **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["run_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == run_ids[::-1]


def test_an_inspection_without_a_history_has_no_items(http: httpx.Client, engine: Engine) -> None:
    make_versions(engine)
    [inspection_id] = finish_inspections(engine, 1)
    assert http.get(f"/v1/inspections/{inspection_id}/rescores").json() == {"items": [], "next_cursor": None}
    for path, params, status, code in (
        (str(uuid4()), {}, 404, "not_found"),
        ("x", {}, 404, "not_found"),
        (str(inspection_id), {"cursor": "x"}, 422, "invalid_cursor"),
        (str(inspection_id), {"limit": "0"}, 422, "invalid_field"),
        (str(inspection_id), {"run": "1"}, 422, "invalid_field"),
    ):
        answer = http.get(f"/v1/inspections/{path}/rescores", params=params)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_history_is_found_by_an_index(engine: Engine) -> None:
    query = f"SELECT number FROM rescore_results WHERE inspection_id = '{uuid4()}' ORDER BY run_id DESC LIMIT 100"  # noqa: S608
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = "\n".join(connection.execute(text(f"EXPLAIN {query}")).scalars())
    assert "ix_rescore_results_inspection_id" in plan, plan
    assert "Index Cond: (inspection_id" in plan, plan
