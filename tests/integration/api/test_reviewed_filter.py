"""The filter `reviewed` of `GET /v1/inspections` and of the export: the verdict of the newest review."""

import csv
import io
from collections.abc import Iterator
from itertools import product
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, select, text

from core.inspection import inspections, reviews
from core.inspection.inspections import Filters, Reviewed
from core.models.verdicts import Verdict
from core.queue import finishing
from core.queue.finishing import Outcome
from core.settings import Settings
from core.tables import inspections as table
from tests.fixtures.api_process import running_api
from tests.fixtures.inserted_inspections import insert_inspections
from tests.fixtures.queued_work import claim, make_recipe, submit

HISTORIES: tuple[tuple[Verdict, ...], ...] = ((), ("ok",), ("ng",), ("ok", "ng"), ("ng", "ok"), ("ok", "ok"))
MACHINE: tuple[Verdict, ...] = ("ok", "ng", "review")
FILTERS = ("ok", "ng", "any", "none")


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def inspected(engine: Engine, recipe_id: int, machine: Verdict, history: tuple[Verdict, ...], **fields: str) -> UUID:
    """Complete an inspection and review it; return its id."""
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1, **fields)
        [mine] = claim(connection, recipe_id, [inspection_id])
        outcome = Outcome(mine.id, mine.attempt, "completed", anomaly_score=0.25, verdict=machine)
        finishing.finish(connection, [outcome])
        for verdict in history:
            reviews.add(connection, inspection_id, verdict=verdict, reviewer="Jo", reason="dust", actor="test")
    return inspection_id


def matches(history: tuple[Verdict, ...], wanted: str) -> bool:
    """Whether an inspection with these reviews, oldest first, passes the filter."""
    return wanted == "none" if not history else wanted in ("any", history[-1])


def listed(http: httpx.Client, *, limit: int = 100, **params: str) -> list[UUID]:
    """The ids of all pages of a listing."""
    ids: list[UUID] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/inspections", params={"limit": str(limit), **params, **cursor}).json()
        assert len(page["items"]) <= limit
        ids += [UUID(item["id"]) for item in page["items"]]
        if page["next_cursor"] is None:
            return ids
        cursor = {"cursor": page["next_cursor"]}


def test_the_newest_review_decides_in_combination_with_other_filters(
    http: httpx.Client, engine: Engine, recipe_id: int
) -> None:
    kinds = list(product(HISTORIES, MACHINE, ("L-1", "L-2")))
    ids = [inspected(engine, recipe_id, machine, history, lot_id=lot) for history, machine, lot in kinds]
    with engine.begin() as connection:
        queued = submit(connection, 2, lot_id="L-1")
    newest_first = list(zip(reversed(ids), reversed(kinds), strict=True))
    for wanted in FILTERS:
        expected = [each for each, (history, _, _) in newest_first if matches(history, wanted)]
        with_queued = [*reversed(queued), *expected] if wanted == "none" else expected
        assert listed(http, reviewed=wanted) == with_queued
        assert listed(http, reviewed=wanted, recipe="ring", limit=3) == with_queued
        assert listed(http, reviewed=wanted, status="completed") == expected
        for machine, lot in (("ng", "L-1"), ("review", "L-2")):
            some = [each for each, kind in newest_first if each in expected and kind[1:] == (machine, lot)]
            assert listed(http, reviewed=wanted, verdict=machine, lot_id=lot, limit=1) == some
        answer = http.get("/v1/inspections/export", params={"reviewed": wanted, "recipe": "ring"})
        rows = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
        assert [UUID(row["id"]) for row in rows] == with_queued


def test_reviews_of_another_recipe_do_not_count(http: httpx.Client, engine: Engine, recipe_id: int) -> None:
    mine = inspected(engine, recipe_id, "ng", ("ok",))
    with engine.begin() as connection:
        make_recipe(connection, "other")
    assert listed(http, reviewed="any", recipe="ring") == [mine]
    assert listed(http, reviewed="any", recipe="other") == []


def test_a_wrong_value_or_recipe_is_refused(http: httpx.Client) -> None:
    for path in ("/v1/inspections", "/v1/inspections/export"):
        for value in ("maybe", "review", "", "OK"):
            answer = http.get(path, params={"reviewed": value})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), value
        unknown = http.get(path, params={"reviewed": "ok", "recipe": "nobody"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "recipe_unknown")


def test_openapi_documents_the_values(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    for path in ("/v1/inspections", "/v1/inspections/export"):
        parameters = {each["name"]: each for each in document["paths"][path]["get"]["parameters"]}
        assert "reviews decided" in parameters["reviewed"]["description"]
        [values] = [option["enum"] for option in parameters["reviewed"]["schema"]["anyOf"] if "enum" in option]
        assert tuple(values) == FILTERS


@pytest.mark.parametrize("wanted", ["ok", "ng", "any"])
def test_reviews_of_other_recipes_are_not_read(engine: Engine, recipe_id: int, wanted: Reviewed) -> None:
    insert_inspections(engine, 9000, recipe="often-reviewed")
    inspected(engine, recipe_id, "ng", ("ok", "ng"))
    with engine.begin() as connection:
        connection.execute(text("ANALYZE inspections, reviews"))
        conditions = inspections.conditions(connection, Filters(recipe="ring", reviewed=wanted), table)
        query = select(table.c.id).where(*conditions).order_by(table.c.id.desc()).limit(101)
        statement = query.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.execute(text(f"EXPLAIN {statement}")).scalars())
    assert "ix_reviews_recipe_id_inspection_id" in plan, plan
    assert "Seq Scan on reviews" not in plan, plan
