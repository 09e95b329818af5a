"""Uploads while a backend is full or unavailable: 503 with a code and `Retry-After`, and nothing is accepted."""

import errno
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine, text

from api.requests.store_refusals import store_refusal
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png


def submit(http: httpx.Client) -> httpx.Response:
    return http.post(
        "/v1/inspections", params={"recipe": "patient"}, content=png(1), headers={"Content-Type": "image/png"}
    )


def assert_unavailable(answer: httpx.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, code), answer.text
    assert int(answer.headers["Retry-After"]) > 0


def accepted(engine: Engine) -> int:
    with engine.begin() as connection:
        items, _ = inspections.list_page(connection, Filters(), before=None, limit=100)
    return len(items)


def test_too_many_images_waiting_for_a_model(settings: Settings, engine: Engine) -> None:
    with running_api(settings, LINEWATCH_MAX_WAITING_DEPTH="2") as http:
        http.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        answers = [submit(http) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 503, 503]
        assert_unavailable(answers[-1], "waiting_queue_full")
        assert accepted(engine) == 2
        assert http.post(f"{answers[0].headers['Location']}/cancel").status_code == 200
        deadline = time.monotonic() + 30
        while submit(http).status_code != 202 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert accepted(engine) == 3


def test_an_unwritable_store(settings: Settings, engine: Engine) -> None:
    with running_api(settings) as http:
        http.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        staging = Path(urlsplit(settings.store_url).path) / "tmp"
        staging.rmdir()
        staging.touch()  # not even root can write below a file
        assert_unavailable(submit(http), "store_unavailable")
        assert_unavailable(http.get("/readyz"), "store_unavailable")
        assert http.get("/healthz").status_code == 200
        assert accepted(engine) == 0
        staging.unlink()
        staging.mkdir()
        assert submit(http).status_code == 202


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_store(number: int) -> None:
    assert store_refusal(OSError(number, "no space")).code == "store_full"


def test_an_unavailable_database(settings: Settings, engine: Engine, servers: EmbeddedServers) -> None:
    with running_api(settings) as http:
        http.post("/v1/recipes", json={"name": "patient", "without_model": "wait"})
        assert submit(http).status_code == 202
        engine.dispose()
        servers.postgres.stop()
        try:
            assert_unavailable(submit(http), "database_unavailable")
            assert_unavailable(http.get("/v1/inspections"), "database_unavailable")
            assert_unavailable(http.get("/readyz"), "database_unavailable")
            assert http.get("/healthz").status_code == 200
        finally:
            servers.postgres.start()
        assert submit(http).status_code == 202
        assert accepted(engine) == 2


def test_a_locked_table_blocks_no_request_forever(settings: Settings, engine: Engine) -> None:
    with running_api(settings) as http, engine.begin() as connection:
        connection.execute(text("LOCK TABLE recipes IN ACCESS EXCLUSIVE MODE"))
        assert_unavailable(http.get("/v1/recipes"), "database_unavailable")
