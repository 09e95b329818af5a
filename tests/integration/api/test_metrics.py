"""`GET /metrics`: what an api process counts, and the state of the system."""

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png

UNKNOWN = "0193e0c8-0000-7000-8000-000000000000"


@pytest.fixture
def http(settings: Settings, recipe_id: int) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def read(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(http: httpx.Client, name: str, **labels: str) -> float | None:
    return read(http).get((f"linewatch_{name}", frozenset(labels.items())))


def upload(http: httpx.Client, seed: int, **fields: str) -> httpx.Response:
    query = {"recipe": "ring", **fields}
    return http.post("/v1/inspections", params=query, content=png(seed), headers={"Content-Type": "image/png"})


def test_requests_are_counted_by_the_template_of_their_route(http: httpx.Client) -> None:
    assert upload(http, 1).status_code == 202
    form = {"image": ("a.png", png(2), "image/png")}
    assert http.post("/v1/inspections", data={"recipe": "ring"}, files=form).status_code == 202
    for _ in range(3):
        assert http.get(f"/v1/inspections/{UNKNOWN}").status_code == 404
    http.get("/nowhere")
    http.request("PROPFIND", "/v1/inspections")
    found = read(http)

    def requests(method: str, route: str, status: int) -> float | None:
        labels = {"method": method, "route": route, "status": str(status)}
        return found.get(("linewatch_http_requests_total", frozenset(labels.items())))

    assert requests("POST", "/v1/inspections", 202) == 2
    assert requests("GET", "/v1/inspections/{inspection_id}", 404) == 3
    assert requests("GET", "none", 404) == 1
    assert sum(number for (_, labels), number in found.items() if ("method", "other") in labels) >= 1
    took = {"method": "GET", "route": "/v1/inspections/{inspection_id}"}
    assert found["linewatch_http_request_duration_seconds_count", frozenset(took.items())] == 3


def test_accepted_and_refused_images_are_counted(http: httpx.Client) -> None:
    assert value(http, "refusals_total", code="queue_full") == 0  # every code is there from the start
    assert upload(http, 1, priority="bulk").status_code == 202
    images = [("images", ("a.png", png(1), "image/png")), ("images", ("b.png", b"nothing", "image/png"))]
    batch = http.post("/v1/batches", data={"recipe": "ring"}, files=images)
    assert batch.status_code == 202, batch.text
    [error] = batch.json()["errors"]
    assert upload(http, 1, recipe="none").json()["code"] == "recipe_unknown"
    assert value(http, "accepted_inspections_total", priority="bulk") == 1
    assert value(http, "accepted_inspections_total", priority="live") == 1
    assert value(http, "refused_images_total", code=error["code"]) == 1
    assert value(http, "refusals_total", code="recipe_unknown") == 1


def test_a_repeated_response_is_not_counted_as_accepted_again(http: httpx.Client) -> None:
    headers = {"Content-Type": "image/png", "Idempotency-Key": "a"}
    for _ in range(2):
        http.post("/v1/inspections", params={"recipe": "ring"}, content=png(1), headers=headers).raise_for_status()
    assert value(http, "accepted_inspections_total", priority="live") == 1


def test_cancelled_inspections_are_counted(http: httpx.Client) -> None:
    inspection_id = upload(http, 1).json()["id"]
    http.post(f"/v1/inspections/{inspection_id}/cancel").raise_for_status()
    http.post(f"/v1/inspections/{inspection_id}/cancel").raise_for_status()
    images = [("images", (f"{seed}.png", png(seed), "image/png")) for seed in range(2)]
    batch = http.post("/v1/batches", data={"recipe": "ring"}, files=images).json()
    http.post(f"/v1/batches/{batch['id']}/cancel").raise_for_status()
    assert value(http, "inspections_total", recipe="ring", status="cancelled", verdict="none") == 3


def test_the_state_of_the_system_is_there(http: httpx.Client) -> None:
    upload(http, 1)
    assert value(http, "database_up") == 1
    assert value(http, "queue_depth", queue="live", state="waiting") == 1
    assert value(http, "workers", kind="scoring", state="ready") == 0
    assert value(http, "health", status="down") == 1


def test_without_a_database_the_process_still_answers(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")})
    with running_api(nowhere) as http:
        assert value(http, "database_up") == 0
        assert value(http, "queue_depth", queue="live", state="waiting") is None
        assert value(http, "refusals_total", code="database_unavailable") == 0
