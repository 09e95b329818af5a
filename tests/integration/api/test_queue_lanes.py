"""Queue limits: bulk work and recipes without a model have their own limits, so that live uploads are accepted."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core.models import recipes
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe
from tests.fixtures.part_images import png


@pytest.fixture
def http(engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    """An api without workers, with small limits; `ring` has a model, `new` has none."""
    make_recipe(engine)
    make_recipe(engine, "other")
    with engine.begin() as connection:
        recipes.create(connection, "new", without_model="wait", actor="test")
    variables = {"LINEWATCH_MAX_QUEUE_DEPTH": "4", "LINEWATCH_MAX_BULK_DEPTH": "2", "LINEWATCH_MAX_WAITING_DEPTH": "2"}
    with running_api(settings, **variables) as client:
        yield client


def submit(http: httpx.Client, recipe: str, priority: str = "live") -> httpx.Response:
    return http.post(
        "/v1/inspections",
        params={"recipe": recipe, "priority": priority},
        content=png(1),
        headers={"Content-Type": "image/png"},
    )


def code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


def test_bulk_work_and_recipes_without_a_model_have_their_own_limits(http: httpx.Client) -> None:
    assert [submit(http, "ring", "bulk").status_code for _ in range(2)] == [202, 202]
    full = submit(http, "ring", "bulk")
    assert code(full) == (503, "queue_full")
    assert int(full.headers["Retry-After"]) >= 1
    assert [submit(http, "new").status_code for _ in range(2)] == [202, 202]
    assert code(submit(http, "new")) == (503, "waiting_queue_full")
    assert [submit(http, "ring").status_code for _ in range(3)] == [202, 202, 202]
    assert submit(http, "other").status_code == 202
    assert code(submit(http, "other")) == (503, "queue_full")


def test_a_batch_is_counted_by_the_priority_of_its_images(http: httpx.Client) -> None:
    images = [("images", (f"{number}.png", png(number))) for number in range(2)]
    batch = http.post("/v1/batches", data={"recipe": "ring", "priority": "bulk"}, files=images)
    assert batch.status_code == 202
    assert code(http.post("/v1/batches", data={"recipe": "ring", "priority": "bulk"}, files=images))[0] == 503
    assert http.post("/v1/batches", data={"recipe": "ring"}, files=images).status_code == 202
