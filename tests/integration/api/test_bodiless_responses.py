"""HEAD is answered wherever GET is, and what has an `ETag` is not sent again to a client that has it."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.api_routes import ROUTES, address
from tests.fixtures.finished_inspections import finish_inspections, make_recipe_with_model
from tests.fixtures.part_images import png

READABLE = [address(path) for method, path in ROUTES if method == "GET"]
OF_ONE_ANSWER = {"date", "x-request-id", "transfer-encoding"}


@pytest.fixture
def http(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_DEFAULT_RECIPE="ring") as client:
        yield client


@pytest.fixture
def image(http: httpx.Client) -> str:
    """The path of an image in the store."""
    return f"{http.post('/v1/inspections', content=png(1)).headers['Location']}/image"


def test_head_is_answered_as_get_without_its_body(http: httpx.Client, image: str) -> None:
    for path in (*READABLE, image, "/static/app/main.js", "/v1/inspections/nonsense", "/nowhere"):
        got, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        same = {name: value for name, value in got.headers.items() if name not in OF_ONE_ANSWER}
        if path in ("/v1/system", "/v1/statistics", "/metrics"):
            del same["content-length"]  # its figures change
        assert {name: head.headers.get(name) for name in same} == same, path
    assert http.head("/v1/inspections/00000000-0000-0000-0000-000000000000/cancel").headers["Allow"] == "POST"


def test_the_connection_goes_on_after_a_head(http: httpx.Client, image: str) -> None:
    """Were a body sent, it would be read as the next response."""
    request = f"HEAD {image} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with socket.create_connection(("127.0.0.1", http.base_url.port or 80), timeout=30) as connection:
        connection.sendall(f"{request}Connection: close\r\n\r\n".encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    first, _, second = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 ")
    assert f"content-length: {len(png(1))}".encode() in first
    assert second.startswith(b"HTTP/1.1 200 ")


def test_head_of_an_endless_stream_ends(http: httpx.Client, engine: Engine) -> None:
    finish_inspections(engine, 3)
    for _ in range(3):
        head = http.head("/v1/results/stream")
        assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert http.head("/v1/inspections/export?format=csv").status_code == 200
    assert http.get("/healthz").status_code == 200


def test_a_client_that_has_the_content_gets_304(http: httpx.Client, image: str) -> None:
    with_etag = [path for path in (*READABLE, image, "/static/app/main.js") if "ETag" in http.head(path).headers]
    assert {image, "/", "/docs", "/static/app/main.js"} <= set(with_etag)
    for path in with_etag:
        first = http.get(path)
        etag, modified = first.headers["ETag"], first.headers["Last-Modified"]
        for headers in (
            {"If-None-Match": etag},
            {"If-None-Match": f'"other", W/{etag}'},
            {"If-None-Match": "*"},
            {"If-None-Match": etag, "Range": "bytes=0-9"},
            {"If-None-Match": etag, "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
            {"If-Modified-Since": modified},
        ):
            for method in ("GET", "HEAD"):
                answer = http.request(method, path, headers=headers)
                assert (answer.status_code, answer.content) == (304, b""), (path, headers)
                assert answer.headers["ETag"] == etag
                assert answer.headers.get("Cache-Control") == first.headers.get("Cache-Control")
                assert "Content-Length" not in answer.headers
        for headers in (
            {"If-None-Match": '"other"'},
            {"If-None-Match": '"other"', "If-Modified-Since": modified},
            {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
            {"If-Modified-Since": "nonsense"},
        ):
            assert http.get(path, headers=headers).content == first.content, (path, headers)
    assert http.get("/v1/inspections/nonsense", headers={"If-None-Match": "*"}).status_code == 404
    assert http.post("/v1/inspections", content=png(2), headers={"If-None-Match": "*"}).status_code == 202
