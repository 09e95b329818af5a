"""Queue limits: bulk work and recipes without a model have their own limits, so that live uploads are accepted."""

import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core.access import keys
from core.models import recipes
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png


@pytest.fixture
def http(engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    """An api without workers, with small limits; `ring` has a model, `new` has none."""
    make_recipe_with_model(engine)
    make_recipe_with_model(engine, "other")
    with engine.begin() as connection:
        recipes.create(connection, "new", without_model="wait", actor="test")
    variables = {"LINEWATCH_MAX_QUEUE_DEPTH": "4", "LINEWATCH_MAX_BULK_DEPTH": "2", "LINEWATCH_MAX_WAITING_DEPTH": "2"}
    with running_api(settings, **variables) as client:
        yield client


def submit(
    http: httpx.Client, recipe: str, priority: str = "live", *, headers: dict[str, str] | None = None
) -> httpx.Response:
    return http.post(
        "/v1/inspections",
        params={"recipe": recipe, "priority": priority},
        content=png(1),
        headers={"Content-Type": "image/png", **(headers or {})},
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


def test_one_api_key_cannot_take_a_whole_queue(engine: Engine, settings: Settings) -> None:
    """The count survives a restart of the api: the key of each inspection is in its row."""
    for recipe in ("ring", "other", "third"):
        make_recipe_with_model(engine, recipe)
    with engine.begin() as connection:
        greedy, other = (
            {"Authorization": f"Bearer {keys.create(connection, name, ['submit'], actor='test')[1]}"}
            for name in ("greedy", "other")
        )
    variables = {"LINEWATCH_AUTH": "on", "LINEWATCH_MAX_QUEUE_DEPTH": "5"}
    with running_api(settings, **variables) as client:
        for recipe in ("ring", "ring", "other", "other"):
            assert submit(client, recipe, headers=greedy).status_code == 202
        refused = submit(client, "third", headers=greedy)
        assert code(refused) == (503, "queue_full")
        assert "of the API key" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) >= 1
    with running_api(settings, **variables) as client:
        assert code(wait_for_refusal(client, "third", greedy)) == (503, "queue_full")
        assert submit(client, "third", headers=other).status_code == 202
        assert code(submit(client, "third", headers=other)) == (503, "queue_full")  # the queue is full


def wait_for_refusal(client: httpx.Client, recipe: str, headers: dict[str, str]) -> httpx.Response:
    """Send an empty image, which is never accepted, until the first count of the new api refuses it."""
    deadline = time.monotonic() + 30
    while True:
        response = client.post(
            "/v1/inspections", params={"recipe": recipe}, headers={"Content-Type": "image/png", **headers}
        )
        if response.status_code == 503:
            return response
        assert time.monotonic() < deadline, response.text
        time.sleep(0.1)
