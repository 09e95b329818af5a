"""Clients that stop sending: requests end, idempotency keys are released, and connections are closed."""

import select
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

CLIENT_TIMEOUT = 1.0
HEAD = "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {type}\r\nContent-Length: 100000\r\n"
UPLOAD = HEAD.format(path="/v1/inspections?recipe=ring", type="image/png") + "Idempotency-Key: k-1\r\n\r\n"
JSON = HEAD.format(path="/v1/recipes", type="application/json") + "\r\n"


@pytest.fixture
def http(engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    variables = {"LINEWATCH_CLIENT_TIMEOUT": str(CLIENT_TIMEOUT), "LINEWATCH_MAX_CONNECTIONS": "20"}
    with running_api(settings, **variables) as client:
        yield client


def connect(http: httpx.Client, sent: str = "") -> socket.socket:
    """Open a connection, send this text, and send nothing more."""
    connection = socket.create_connection(("127.0.0.1", http.base_url.port or 80), timeout=30)
    connection.sendall(sent.encode())
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return everything that the api sends until it closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def submit(http: httpx.Client, recipe: str = "ring") -> httpx.Response:
    headers = {"Content-Type": "image/png", "Idempotency-Key": "k-1"}
    return http.post("/v1/inspections", params={"recipe": recipe}, content=png(1), headers=headers)


def stalled_upload(http: httpx.Client) -> socket.socket:
    """Begin an upload that holds its key, and send nothing more.

    The key is asked for by uploads of an unknown recipe, which leave no trace of it. While one of them is being refused
    it holds the key itself, and then it is the stalled upload that is refused: begin another one.
    """
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        stalled = connect(http, UPLOAD + "\x89PNG")
        while not select.select([stalled], [], [], 0.01)[0]:
            if submit(http, "unknown").json()["code"] == "idempotency_in_flight":
                return stalled
        stalled.close()
    raise AssertionError("no upload holds the key")


def test_the_key_of_an_aborted_upload_is_released(http: httpx.Client) -> None:
    with stalled_upload(http) as stalled:
        assert submit(http).json()["code"] == "idempotency_in_flight"
        answer = read_to_end(stalled)
        assert b" 408 " in answer.splitlines()[0]
        assert b'"request_timeout"' in answer
    assert submit(http).status_code == 202


def test_an_incomplete_json_body_gets_an_answer(http: httpx.Client) -> None:
    with connect(http, JSON + '{"name": ') as stalled:
        assert b" 408 " in read_to_end(stalled).splitlines()[0]


@pytest.mark.parametrize("sent", ["", "POST /v1/insp", "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: 1"])
def test_a_connection_without_complete_headers_is_closed(http: httpx.Client, sent: str) -> None:
    with connect(http, sent) as silent:
        assert read_to_end(silent) == b""


def test_a_long_poll_is_not_closed_by_the_idle_timeout(http: httpx.Client) -> None:
    inspection_id = submit(http).json()["id"]
    began = time.monotonic()
    answer = http.get(f"/v1/inspections/{inspection_id}", params={"wait": 2.5 * CLIENT_TIMEOUT})
    assert answer.json()["status"] == "queued"
    assert time.monotonic() - began >= 2 * CLIENT_TIMEOUT


def test_connections_are_limited_and_released(http: httpx.Client) -> None:
    many = [connect(http) for _ in range(40)]
    closed = 0
    for connection in many:
        try:
            closed += read_to_end(connection) == b""
        except ConnectionResetError:  # refused at once: too many connections
            closed += 1
        connection.close()
    assert closed == 40
    assert http.get("/healthz").status_code == 200
