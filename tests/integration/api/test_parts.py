"""`GET /v1/parts/{part_id}`: one verdict for a part with several images."""

from collections.abc import Iterator
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from core.errors import Failure
from core.inspection import parts
from core.models.verdicts import Verdict
from core.queue import finishing
from core.queue.finishing import Outcome
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.queued_work import claim, submit


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def accept(engine: Engine, **fields: str | None) -> UUID:
    with engine.begin() as connection:
        return submit(connection, 1, **fields)[0]


def finish(engine: Engine, recipe_id: int, inspection_id: UUID, verdict: Verdict | None) -> None:
    """Finish an inspection with a verdict, or as failed if it is None."""
    with engine.begin() as connection:
        [mine] = claim(connection, recipe_id, [inspection_id], at_most=1)
        outcome = (
            Outcome(mine.id, mine.attempt, "completed", anomaly_score=0.25, verdict=verdict)
            if verdict is not None
            else Outcome(mine.id, mine.attempt, "failed", error_code=Failure.POISON)
        )
        finishing.finish(connection, [outcome])


def inspected(engine: Engine, recipe_id: int, verdict: Verdict | None, **fields: str) -> UUID:
    inspection_id = accept(engine, **fields)
    finish(engine, recipe_id, inspection_id, verdict)
    return inspection_id


def review(engine: Engine, inspection_id: UUID, verdict: Verdict) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor)
                VALUES (:id, :verdict, 'Jo', 'dust', 'test')
            """),
            {"id": inspection_id, "verdict": verdict},
        )


def test_a_part_is_judged_by_the_newest_image_of_each_view(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    part = {"part_id": "SN/4711", "lot_id": "L-1"}
    inspected(engine, recipe_id, "ng", view="top", **part)
    top = inspected(engine, recipe_id, "ok", view="top", **part)
    plain = inspected(engine, recipe_id, "ok", **part)
    inspected(engine, recipe_id, "ng", part_id="SN/4712", view="top")
    side = accept(engine, view="side", **part)

    running = http.get("/v1/parts/SN/4711").json()
    assert [(view["view"], view["inspection"]["id"]) for view in running["views"]] == [
        (None, str(plain)), ("side", str(side)), ("top", str(top)),
    ]  # fmt: skip
    assert (running["part_id"], running["status"], running["verdict"]) == ("SN/4711", "running", None)

    finish(engine, recipe_id, side, "review")
    answer = http.get(f"/v1/parts/{quote('SN/4711', safe='')}").json()
    assert (answer["status"], answer["verdict"], answer["effective_verdict"]) == ("completed", "review", "review")
    assert answer["counts"] == {
        "total": 3, "queued": 0, "running": 0, "completed": 3, "failed": 0, "cancelled": 0, "ok": 2, "ng": 0,
        "review": 1,
    }  # fmt: skip
    review(engine, side, "ok")
    answer = http.get("/v1/parts/SN/4711").json()
    assert (answer["verdict"], answer["effective_verdict"]) == ("review", "ok")


def test_a_part_with_a_failed_view_needs_review(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    inspected(engine, recipe_id, "ok", part_id="SN", view="top")
    failed = inspected(engine, recipe_id, None, part_id="SN", view="side")
    answer = http.get("/v1/parts/SN").json()
    assert (answer["status"], answer["verdict"], answer["counts"]["failed"]) == ("completed", "review", 1)
    review(engine, failed, "ng")
    assert http.get("/v1/parts/SN").json()["effective_verdict"] == "ng"


def test_a_cancelled_view_is_ignored(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    assert http.post(f"/v1/inspections/{accept(engine, part_id='SN')}/cancel").status_code == 200
    assert http.get("/v1/parts/SN").json()["verdict"] == "review"


def test_a_part_of_one_lot_or_recipe(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    inspected(engine, recipe_id, "ng", part_id="1", lot_id="L-1")
    inspected(engine, recipe_id, "ok", part_id="1", lot_id="L-2")
    assert http.get("/v1/parts/1", params={"lot_id": "L-1"}).json()["verdict"] == "ng"
    assert http.get("/v1/parts/1").json()["verdict"] == "ok"
    assert http.get("/v1/parts/1", params={"recipe": "ring"}).json()["verdict"] == "ok"
    for params in ({"recipe": "other"}, {"lot_id": "L-3"}):
        assert http.get("/v1/parts/1", params=params).status_code == 404


def test_an_unknown_part_is_not_found(http: httpx.Client) -> None:
    for path in ("nobody", "", "a/b/c", "%00", "x" * 201):
        answer = http.get(f"/v1/parts/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_a_placeholder_part_id_is_read_up_to_a_limit(
    engine: Engine, recipe_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        submit(connection, 5, part_id="?", view="old")
        submit(connection, 40, part_id="?", view="new")
    with engine.begin() as connection:
        assert [view.view for view in parts.get(connection, "?").views] == ["new", "old"]
        monkeypatch.setattr(parts, "MAX_INSPECTIONS", 40)
        assert [view.view for view in parts.get(connection, "?").views] == ["new"]


def test_the_newest_of_thousands_of_images_is_found_by_index(engine: Engine, recipe_id: int) -> None:
    inspection_id = inspected(engine, recipe_id, "ok", part_id="SN")
    with engine.begin() as connection:
        columns = ", ".join(
            name
            for name in connection.execute(
                text("SELECT attname FROM pg_attribute WHERE attrelid = 'inspections'::regclass AND attnum > 0")
            ).scalars()
            if name not in ("id", "part_id")
        )
        connection.execute(
            text(
                f"INSERT INTO inspections (id, part_id, {columns}) SELECT uuidv7(), 'SN-' || i, {columns} "  # noqa: S608
                "FROM inspections, generate_series(1, 20000) AS i WHERE inspections.id = :one"
            ),
            {"one": inspection_id},
        )
        connection.execute(text("ANALYZE inspections"))
        where = connection.execute(text("SELECT DISTINCT tableoid::regclass::text FROM inspections")).scalar_one()
    with engine.begin() as connection:
        plan = "\n".join(
            connection.execute(
                text(f"EXPLAIN {parts._NEWEST}"),
                {"part_id": "SN", "lot_id": None, "recipe": None, "limit": parts.MAX_INSPECTIONS},
            ).scalars()
        )
    assert f"{where}_part_id_id_idx" in plan
    assert f"Seq Scan on {where}" not in plan
