"""Every operation of the OpenAPI document with a session: reading needs the cookie, changing the CSRF token, too."""

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import httpx
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.api_routes import Route, address
from tests.fixtures.browsers import browser, sign_in

OPEN = {"/healthz", "/readyz", "/health", "/v1/session"}


def operations(http: httpx.Client, key: str) -> Iterator[Route]:
    document = http.get("/openapi.json", headers={"Authorization": f"Bearer {key}"}).json()
    for path, item in document["paths"].items():
        yield from ((method.upper(), path) for method in item)


def outcome(answer: httpx.Response) -> str:
    return answer.json()["code"] if answer.status_code in (401, 403) else "passed"


def test_every_operation_is_protected(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        _, text = keys.create(connection, "admin", ["admin"], actor="test")
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    wrong, changes = [], 0
    with running_api(settings, LINEWATCH_AUTH="on") as http, browser(http) as page, browser(http) as stranger:
        sign_in(page, text)
        for method, path in operations(http, text):
            if path in OPEN:
                expected = ["passed"] * 4
                if (method, path) == ("DELETE", "/v1/session"):
                    continue  # `test_sessions` ends sessions
                if (method, path) == ("POST", "/v1/session"):
                    expected[-1] = "foreign_origin"
            elif method == "GET":
                expected = ["unauthenticated", "passed", "passed", "passed"]
            else:
                changes += 1
                expected = ["unauthenticated", "passed", "csrf_token_invalid", "foreign_origin"]
            target = address(path)
            answers = [
                stranger.request(method, target),
                page.request(method, target),
                page.request(method, target, headers={"X-CSRF-Token": ""}),
                page.request(method, target, headers=foreign),
            ]
            if [outcome(answer) for answer in answers] != expected or answers[1].status_code >= 500:
                wrong.append((method, path, [answer.text[:100] for answer in answers]))
    assert wrong == []
    assert changes > 30


def test_the_page_and_its_files_need_no_key(settings: Settings) -> None:
    views = ["/", "/live", "/inspections", "/inspections/1", "/thresholds", "/review", "/train", "/models"]
    views += ["/rescoring", "/drift", "/system"]
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        assert http.get("/").status_code == 200
        for path in (*views, "/static/page.css"):
            assert http.get(path).status_code != 401, path
            assert http.post(path).status_code == 401, path
        for path in ("/v1/recipes", "//v1/recipes", "/live/../v1/recipes", "/docs", "/openapi.json", "/metrics"):
            assert raw_status(http, path) == 401, path
        for path in ("/static/../v1/recipes", "/static/%2e%2e/v1/recipes", "/static/..%2fv1/recipes"):
            assert raw_status(http, path) == 404, path


def raw_status(http: httpx.Client, path: str) -> int:
    """Get a path as it is written; `httpx` would resolve its dots."""
    connection = HTTPConnection(http.base_url.host, http.base_url.port)
    with closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status
