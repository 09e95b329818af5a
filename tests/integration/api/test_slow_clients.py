"""Clients that send slowly or without end occupy neither connections nor memory."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from itertools import repeat

import httpx
import pytest
from sqlalchemy import Engine

from api.connections import MAX_HEADER_BYTES
from core.access import keys
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model

CLIENT_TIMEOUT = 2.0
PATIENCE = 15 * CLIENT_TIMEOUT  # seconds after which a connection counts as never closed

HEALTHZ = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPLOAD = "POST /v1/inspections?recipe=ring HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
WITH_KEY = "Authorization: Bearer {key}\r\n"
SIZED, CHUNKED = "Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"

TRICKLES = {
    "headers": (HEALTHZ + "X-Slow: ", b"x", b""),
    "a body": (UPLOAD + WITH_KEY + SIZED, b"\x89", b"408"),
    "chunks": (UPLOAD + WITH_KEY + CHUNKED, b"1\r\n\x89\r\n", b"408"),
    "the rest of a refused body": (UPLOAD + SIZED, b"x", b"401"),
    "the rest of refused chunks": (UPLOAD + CHUNKED, b"1\r\n\x89\r\n", b"401"),
    "blank lines after an answer": (HEALTHZ + "\r\n", b"\r\n", b"200"),
}
"""Per case: the first bytes, the piece that is then repeated, and the expected status."""

ENDLESS = {
    "an address": ("GET /", b"x" * 1000),
    "a header": (HEALTHZ + "X-Long: ", b"x" * 1000),
    "many headers": (HEALTHZ, b"X-Many: x\r\n" * 100),
    "blank lines": ("", b"\r\n" * 500),
    "a trailer of a refused body": (UPLOAD + CHUNKED + "0\r\nX-Long: ", b"x" * 1000),
    "a trailer of an upload": (UPLOAD + WITH_KEY + CHUNKED + "0\r\nX-Long: ", b"x" * 1000),
}
SOCKET_BUFFERS = 8_000_000  # bytes that the kernel accepts after the api has stopped reading


@pytest.fixture
def key(engine: Engine) -> str:
    make_recipe_with_model(engine)
    with engine.begin() as connection:
        return keys.create(connection, "camera", ["submit"], actor="test")[1]


@pytest.fixture
def http(settings: Settings, key: str) -> Iterator[httpx.Client]:
    variables = {"LINEWATCH_AUTH": "on", "LINEWATCH_CLIENT_TIMEOUT": str(CLIENT_TIMEOUT)}
    with running_api(settings, **variables) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def connect(http: httpx.Client) -> socket.socket:
    return socket.create_connection(("127.0.0.1", http.base_url.port or 80), timeout=PATIENCE)


def send_until_closed(http: httpx.Client, start: str, piece: bytes, *, pause: float) -> tuple[bytes, int]:
    """Send the first bytes, and then pieces until the api closes the connection.

    Returns:
        What the api sent until then, and how many bytes of pieces were sent.
    """
    received, sent, give_up = b"", 0, time.monotonic() + PATIENCE
    with connect(http) as connection:
        connection.sendall(start.encode())
        connection.settimeout(pause)
        for next_piece in repeat(piece):
            assert time.monotonic() < give_up, f"the connection stays open; the api sent {received!r}"
            try:
                sent += connection.send(next_piece)
                if not (chunk := connection.recv(65536)):
                    break
                received += chunk
            except TimeoutError:
                continue
            except ConnectionError:
                break
    return received, sent


def assert_serves(http: httpx.Client) -> None:
    assert http.get("/healthz").status_code == 200
    assert http.post("/v1/batches").status_code == 202


def test_a_trickling_request_is_aborted(http: httpx.Client, key: str) -> None:
    def send(name: str) -> bytes:
        start, piece, _ = TRICKLES[name]
        return send_until_closed(http, start.format(key=key), piece, pause=0.1)[0]

    with ThreadPoolExecutor(len(TRICKLES)) as pool:
        answers = dict(zip(TRICKLES, pool.map(send, TRICKLES), strict=True))
    statuses = {name: answer.partition(b" ")[2][:3] for name, answer in answers.items()}
    assert statuses == {name: status for name, (_, _, status) in TRICKLES.items()}
    assert b'"request_timeout"' in answers["a body"]
    assert_serves(http)


def test_one_byte_after_an_answer_does_not_keep_the_connection(http: httpx.Client) -> None:
    with connect(http) as connection:
        connection.sendall((UPLOAD + SIZED).encode())
        assert b" 401 " in connection.recv(65536).splitlines()[0]
        connection.sendall(b"x")
        while connection.recv(65536):
            pass


def test_a_slow_upload_is_accepted(http: httpx.Client, key: str) -> None:
    """An upload may take longer than the idle timeout, and connections are kept alive."""
    with connect(http) as upload, connect(http) as kept:
        upload.sendall((UPLOAD + WITH_KEY.format(key=key) + "Content-Length: 4000\r\n\r\n").encode())
        for _ in range(4):
            for half in (HEALTHZ, "\r\n"):
                upload.sendall(b"\x89" * 500)
                kept.sendall(half.encode())
                time.sleep(0.15 * CLIENT_TIMEOUT)
            assert b" 200 " in kept.recv(65536).splitlines()[0]
        assert b" 415 " in upload.recv(65536).splitlines()[0]  # the api has received the whole body


def test_endless_headers_are_refused_early(http: httpx.Client, key: str) -> None:
    for name, (start, piece) in ENDLESS.items():
        received, sent = send_until_closed(http, start.format(key=key), piece, pause=0.001)
        status = received.partition(b" ")[2][:3]
        assert status in (b"400", b"401", b""), name  # a reset can arrive before the response
        assert sent < MAX_HEADER_BYTES + SOCKET_BUFFERS, name
    assert_serves(http)


def test_long_headers_are_accepted(http: httpx.Client) -> None:
    with connect(http) as connection:
        for _ in range(4):
            for piece in (HEALTHZ, *["X-Long: " + "x" * 16_000 + "\r\n"] * 3, "\r\n"):
                connection.sendall(piece.encode())
                time.sleep(0.01)
            response = HTTPResponse(connection)
            response.begin()
            assert (response.status, bool(response.read())) == (200, True)
