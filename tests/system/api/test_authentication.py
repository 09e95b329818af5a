"""Access to the api: never from other web pages; with authentication, only with a key of the right scope."""

import datetime as dt
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine, text

from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.inserted_inspections import insert_inspections
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_rebound_host_name_is_refused(client: httpx.Client) -> None:
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
def test_requests_from_other_origins_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    assert_refused(client.post("/v1/recipes", json={"name": "evil"}, headers=headers), 403, "foreign_origin")
    assert (
        client.get("/v1/recipes", headers=headers).status_code == 200
    )  # the browser does not let the page read the response


def test_requests_from_the_same_origin_are_accepted(client: httpx.Client, system: System) -> None:
    headers = {"Origin": system.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/batches", headers=headers).status_code == 202


def test_the_page_has_a_content_security_policy(client: httpx.Client) -> None:
    answer = client.get("/")
    assert "<title>Linewatch</title>" in answer.text
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in answer.headers["Content-Security-Policy"]


def test_an_unknown_address_shows_the_page_to_browsers_and_a_problem_to_programs(client: httpx.Client) -> None:
    shown = client.get("/nonsense", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (shown.status_code, "<title>Linewatch</title>" in shown.text) == (404, True)
    for path, accept in (("/nonsense", "*/*"), ("/v1/nonsense", "text/html"), ("/static/nonsense.js", "text/html")):
        assert_refused(client.get(path, headers={"Accept": accept}), 404, "not_found")


def test_each_request_needs_its_scope(settings: Settings, engine: Engine) -> None:
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        assert_scopes_hold(http, engine)


def assert_scopes_hold(http: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        keys_by_scope = {scope: keys.create(connection, scope, [scope], actor="test") for scope in keys.SCOPES}
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
        message = "unknown or was revoked" if "lw_x_y" in str(headers) else "Send an API key"
        assert message in answer.json()["detail"]

    def ask(scope: str, method: str, path: str, **body: object) -> int:
        headers = {"Authorization": f"Bearer {keys_by_scope[scope][1]}", "Host": "plant.example"}
        return http.request(method, path, headers=headers, **body).status_code  # type: ignore[arg-type]

    image = {"files": {"image": ("a.png", png(1))}}
    assert ask("admin", "POST", "/v1/recipes", json={"name": "ring"}) == 201
    assert [ask(scope, "GET", "/v1/recipes") for scope in keys.SCOPES] == [403, 200, 200]
    assert [ask(scope, "POST", "/v1/recipes/ring/rollback") for scope in keys.SCOPES] == [403, 403, 409]
    assert [ask(scope, "POST", "/v1/inspections", **image) for scope in keys.SCOPES] == [404, 403, 404]
    with engine.begin() as connection:
        keys.revoke(connection, keys_by_scope["read"][0].prefix, actor="test")
    deadline = time.monotonic() + 30
    while ask("read", "GET", "/v1/recipes") != 401 and time.monotonic() < deadline:
        time.sleep(0.2)
    revoked = http.get("/v1/recipes", headers={"Authorization": f"Bearer {keys_by_scope['read'][1]}"})
    assert_refused(revoked, 401, "unauthenticated")
    assert "unknown or was revoked" in revoked.json()["detail"]


def test_a_review_records_its_api_key(settings: Settings, engine: Engine) -> None:
    insert_inspections(engine, 1)
    with engine.begin() as connection:
        keys_by_scope = {scope: keys.create(connection, scope, [scope], actor="test") for scope in keys.SCOPES}
        one_id = connection.execute(text("SELECT id FROM inspections")).scalar_one()
    review = {"verdict": "ok", "reviewer": "A. Person", "reason": "dust"}
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        answers = {
            scope: http.post(
                f"/v1/inspections/{one_id}/reviews", json=review, headers={"Authorization": f"Bearer {key}"}
            )
            for scope, (_, key) in keys_by_scope.items()
        }
    assert {scope: answer.status_code for scope, answer in answers.items()} == {
        "submit": 201,
        "read": 403,
        "admin": 201,
    }
    actor = f"key:{keys_by_scope['submit'][0].prefix}"
    assert answers["submit"].json()["reviews"][-1]["actor"] == actor
    with engine.begin() as connection:
        audited = text("SELECT actor FROM audit_events WHERE action = 'inspection.reviewed' ORDER BY id LIMIT 1")
        assert connection.execute(audited).scalar_one() == actor


@pytest.fixture
def authenticated_api(settings: Settings) -> Iterator[httpx.Client]:
    """An api that requires keys."""
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        yield http


def get_with_key(http: httpx.Client, key: str, path: str = "/v1/recipes") -> httpx.Response:
    return http.get(path, headers={"Authorization": f"Bearer {key}"})


def test_a_key_is_refused_once_it_has_expired(authenticated_api: httpx.Client, engine: Engine) -> None:
    """This holds for a cached key too."""
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4)
    with engine.begin() as connection:
        _, key = keys.create(connection, "mes", ["read"], actor="test", expires_at=expires_at)
    assert get_with_key(authenticated_api, key).status_code == 200
    asked_at = dt.datetime.now(dt.UTC)
    while asked_at < expires_at:
        get_with_key(authenticated_api, key)
        asked_at = dt.datetime.now(dt.UTC)
    answer = get_with_key(authenticated_api, key)
    assert_refused(answer, 401, "unauthenticated")
    assert "expired" in answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (
        "expired" not in get_with_key(authenticated_api, f"{key}x").json()["detail"]
    )  # not disclosed without the whole key


def test_a_key_over_its_rate_limit_gets_429(authenticated_api: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        _, slow = keys.create(connection, "slow", ["read"], actor="test", requests_per_minute=2)
        _, free = keys.create(connection, "free", ["read"], actor="test")
    answers = [get_with_key(authenticated_api, slow) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_refused(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 30
    assert {get_with_key(authenticated_api, free).status_code for _ in range(10)} == {200}


def test_recording_the_use_of_a_key_does_not_delay_requests(authenticated_api: httpx.Client, engine: Engine) -> None:
    used = text("SELECT last_used_at FROM api_keys")
    with engine.begin() as connection:
        _, key = keys.create(connection, "mes", ["read"], actor="test")
        assert connection.execute(used).scalar_one() is None
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM api_keys FOR UPDATE"))  # the use cannot be recorded now
        assert get_with_key(authenticated_api, key).status_code == 200
    deadline = time.monotonic() + 30
    while True:
        with engine.begin() as connection:
            noted = connection.execute(used).scalar_one()
        if noted is not None:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(5):
        assert get_with_key(authenticated_api, key).status_code == 200
    with engine.begin() as connection:
        assert connection.execute(used).scalar_one() == noted


def test_beyond_loopback_keys_are_required(settings: Settings) -> None:
    with running_api(settings, LINEWATCH_HOST="0.0.0.0") as http:  # noqa: S104 - as tested
        assert_refused(http.get("/v1/recipes"), 401, "unauthenticated")
        assert http.get("/healthz").status_code == 200


def test_keys_cannot_be_switched_off_beyond_loopback() -> None:
    environment = os.environ | {"LINEWATCH_HOST": "0.0.0.0", "LINEWATCH_AUTH": "off"}  # noqa: S104 - as tested
    command = [sys.executable, "-m", "api"]
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 2
    assert "LINEWATCH_AUTH=off is for loopback addresses" in completed.stderr
