"""Who may ask: other web pages never; with keys, who has one with the right scope."""

import time

import httpx
import pytest
from sqlalchemy import Engine

from core import keys
from core.settings import Settings
from tests.conftest import System, serving
from tests.parts import png


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_rebound_name_gets_nothing(client: httpx.Client) -> None:
    assert_refused(client.get("/v1/recipes", headers={"Host": "evil.example"}), 403, "foreign_origin")
    assert_refused(client.get("/v1/recipes", headers={"Host": "["}), 403, "foreign_origin")
    assert client.get("/v1/recipes", headers={"Host": "localhost:1"}).status_code == 200
    for probe in ("/healthz", "/readyz"):
        assert client.get(probe, headers={"Host": "pod.cluster"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
def test_another_web_page_changes_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    assert_refused(client.post("/v1/recipes", json={"name": "evil"}, headers=headers), 403, "foreign_origin")
    assert client.get("/v1/recipes", headers=headers).status_code == 200  # it cannot read the answer anyway


def test_the_own_page_may(client: httpx.Client, system: System) -> None:
    own = {"Origin": system.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/batches", headers=own).status_code == 202


def test_the_page_is_served_with_a_policy(client: httpx.Client) -> None:
    answer = client.get("/")
    assert "<title>Linewatch</title>" in answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_with_keys_on_each_request_needs_its_scope(settings: Settings, engine: Engine) -> None:
    with serving(settings, LINEWATCH_AUTH="on") as http:
        assert_scopes_hold(http, engine)


def assert_scopes_hold(http: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        made = {scope: keys.create(connection, scope, [scope], actor="test") for scope in keys.SCOPES}
    for path in ("/healthz", "/readyz", "/health", "/"):
        assert http.get(path).status_code == 200
    for headers in (
        {},
        {"Authorization": "Bearer lw_x_y"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
    ):
        answer = http.get("/v1/recipes", headers=headers)
        assert_refused(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def ask(scope: str, method: str, path: str, **body: object) -> int:
        headers = {"Authorization": f"Bearer {made[scope][1]}", "Host": "plant.example"}
        return http.request(method, path, headers=headers, **body).status_code  # type: ignore[arg-type]

    image = {"files": {"image": ("a.png", png(1))}}
    assert ask("admin", "POST", "/v1/recipes", json={"name": "ring"}) == 201
    assert [ask(scope, "GET", "/v1/recipes") for scope in keys.SCOPES] == [403, 200, 200]
    assert [ask(scope, "POST", "/v1/recipes/ring/rollback") for scope in keys.SCOPES] == [403, 403, 409]
    assert [ask(scope, "POST", "/v1/inspections", **image) for scope in keys.SCOPES] == [404, 403, 404]
    with engine.begin() as connection:
        keys.revoke(connection, made["read"][0].prefix, actor="test")
    deadline = time.monotonic() + 30
    while ask("read", "GET", "/v1/recipes") != 401 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ask("read", "GET", "/v1/recipes") == 401
