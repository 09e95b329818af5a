"""`POST /v1/rescore-runs/count`: how many images a run would have, before it is created."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.rescoring import source_counts
from core.rescoring.requests import RunRequest
from core.rescoring.source_counts import SourceCount
from core.settings import Settings
from core.storage.archive_roots import Archives
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE, finish_one
from tests.fixtures.part_images import png
from tests.fixtures.queued_work import submit
from tests.fixtures.rescore_runs import make_versions

COUNT = "/v1/rescore-runs/count"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive root with a folder of three images, and a manifest with two lines, one of them invalid."""
    lot = tmp_path / "archive" / "lot"
    (lot / "more").mkdir(parents=True)
    for name in ("one.png", "two.png", "more/three.png", "note.txt"):
        (lot / name).write_bytes(png(1))
    (lot.parent / "lot.jsonl").write_text('{"path": "lot/one.png"}\n\n{"nothing": 1}\n')
    return lot.parent


@pytest.fixture
def api(engine: Engine, settings: Settings, archive: Path) -> Iterator[httpx.Client]:
    make_versions(engine)
    with engine.begin() as connection:
        for lot, verdict in (("L-1", "ok"), ("L-1", "ng"), ("L-2", "review"), ("L-2", None)):
            finish_one(connection, 1, verdict, lot_id=lot)  # type: ignore[arg-type]
        submit(connection, 2)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(archive)) as http:
        yield http


def body(source: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"recipe": RECIPE, "model_version": 2, "source": source, **fields}


def test_a_count_is_the_number_of_images_of_the_run(api: httpx.Client, archive: Path) -> None:
    for source, images in (
        ({"where": {}}, 4),
        ({"where": {"lot_id": "L-1"}}, 2),
        ({"where": {"effective_verdict": "review"}}, 1),
        ({"where": {"status": "failed", "max_age_hours": 1}}, 1),
        ({"where": {"until": "2020-01-01T00:00:00Z"}}, 0),
        ({"folder": str(archive / "lot")}, 3),
        ({"folder": str(archive)}, 3),
        ({"manifest": str(archive / "lot.jsonl")}, 2),
    ):
        answer = api.post(COUNT, json=body(source))
        assert (answer.status_code, answer.json()) == (200, {"images": images, "exact": True}), source
    assert api.get("/v1/rescore-runs").json()["items"] == []


def test_a_count_has_no_other_method(api: httpx.Client) -> None:
    answer = api.get(COUNT)
    assert (answer.status_code, answer.json()["code"], answer.headers["Allow"]) == (405, "method_not_allowed", "POST")
    malformed = api.get("/v1/rescore-runs/nonsense")
    assert (malformed.status_code, malformed.json()["code"]) == (404, "not_found")


def test_a_count_refuses_what_a_run_refuses(api: httpx.Client) -> None:
    for wrong, status, code in (
        (body({}), 422, "invalid_field"),
        (body({"where": {}}, recipe="unknown"), 404, "recipe_unknown"),
        (body({"where": {}}, model_version=9), 404, "not_found"),
        (body({"folder": "/"}), 422, "source_refused"),
    ):
        for path in (COUNT, "/v1/rescore-runs"):
            answer = api.post(path, json=wrong)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (path, wrong)


@pytest.mark.parametrize("source", [{"where": {}}, {"folder": "lot"}, {"manifest": "lot.jsonl"}])
def test_a_count_ends_after_its_time(engine: Engine, settings: Settings, archive: Path, source: dict[str, Any]) -> None:
    make_versions(engine)
    located = {name: value if name == "where" else str(archive / value) for name, value in source.items()}
    request = RunRequest.model_validate(body(located))
    archives = Archives.of(settings.model_copy(update={"archive_roots": str(archive)}))
    assert source_counts.count_images(engine, archives, request, max_seconds=0) == SourceCount(0, exact=False)
    assert source_counts.count_images(engine, archives, request).exact


def test_a_slow_statement_ends_the_count(engine: Engine, settings: Settings) -> None:
    make_versions(engine)
    with engine.begin() as connection:
        finish_one(connection, 1, "ok")
    with engine.connect() as other:
        other.execute(text("LOCK TABLE inspections IN ACCESS EXCLUSIVE MODE"))
        request = RunRequest.model_validate(body({"where": {}}))
        counted = source_counts.count_images(engine, Archives.of(settings), request, max_seconds=0.2)
    assert counted == SourceCount(0, exact=False)
