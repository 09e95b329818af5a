"""Who may ask: other web pages never; with keys, who has one with the right scope."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core import keys
from core.settings import Settings
from tests.conftest import System, free_port
from tests.parts import png


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_rebound_name_gets_nothing(client: httpx.Client) -> None:
    assert_refused(client.get("/v1/recipes", headers={"Host": "evil.example"}), 403, "foreign_origin")
    assert_refused(client.get("/v1/recipes", headers={"Host": "["}), 403, "foreign_origin")
    assert client.get("/v1/recipes", headers={"Host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
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


@pytest.fixture
def guarded(settings: Settings) -> Iterator[str]:
    """An api with keys on."""
    port = free_port()
    environment = os.environ | {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_PORT": str(port),
        "LINEWATCH_AUTH": "on",
    }
    process = subprocess.Popen([sys.executable, "-m", "api"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{url}/healthz", timeout=1)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def test_with_keys_on_each_request_needs_its_scope(guarded: str, engine: Engine) -> None:
    with engine.begin() as connection:
        made = {scope: keys.create(connection, scope, [scope], actor="test") for scope in keys.SCOPES}
    for path in ("/healthz", "/readyz", "/health", "/"):
        assert httpx.get(f"{guarded}{path}").status_code == 200
    for headers in (
        {},
        {"Authorization": "Bearer lw_x_y"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer"},
    ):
        answer = httpx.get(f"{guarded}/v1/recipes", headers=headers)
        assert_refused(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def ask(scope: str, method: str, path: str, **body: object) -> int:
        headers = {"Authorization": f"Bearer {made[scope][1]}", "Host": "plant.example"}
        return httpx.request(method, f"{guarded}{path}", headers=headers, **body).status_code  # type: ignore[arg-type]

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
