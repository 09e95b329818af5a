"""The memory of the api stays limited under many concurrent uploads and forms of hundreds of megabytes."""

import json
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import Api, api_process
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

UPLOADS = 1000
ANNOUNCED = 20_000_000  # bytes of each upload
BEGUN = 300_000  # bytes of each upload that arrive: enough for a file in the store
LARGE, SENT = 20, ANNOUNCED - 100_000  # some uploads, and the bytes of each that arrive
MAX_CONNECTIONS = UPLOADS + 50
USUAL_OPEN_FILES = 1024  # the soft limit of most systems
BOUND_OF_UPLOADS = UPLOADS * 500_000  # bytes; the received data is larger by half

FORM_BYTES = 200_000_000
EARLY_BYTES = FORM_BYTES // 10  # the first fields, and the data in socket buffers after the api has stopped reading
PIECE = 60_000
BOUND_OF_FORMS = 50_000_000  # bytes


@pytest.fixture
def api(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Api]:
    make_recipe_with_model(engine)
    variables = {"LINEWATCH_MAX_CONNECTIONS": str(MAX_CONNECTIONS), "LINEWATCH_CLIENT_TIMEOUT": "20"}
    with api_process(settings, output=tmp_path / "api.log", open_files=USUAL_OPEN_FILES, **variables) as api:
        yield api


@pytest.fixture
def staging(settings: Settings) -> Path:
    return Path(urlsplit(settings.store_url).path) / "tmp"


@pytest.fixture
def _many_open_files() -> Iterator[None]:
    """Raise the limit of open files of the test process, for its connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2 * UPLOADS), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def growth(api: Api) -> Iterator[list[int]]:
    """Measure the memory growth of the api during the block, in bytes: the last entry of the list."""
    process, stop, largest = psutil.Process(api.process.pid), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.02):
            largest.append(max(largest[-1], process.memory_info().rss - before))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield largest
    finally:
        stop.set()
        watching.join()


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.http.base_url.port or 80), timeout=60)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submit(http: httpx.Client) -> httpx.Response:
    return http.post(
        "/v1/inspections", params={"recipe": "ring"}, content=png(1), headers={"Content-Type": "image/png"}
    )


@pytest.mark.usefixtures("_many_open_files")
def test_memory_stays_limited_during_a_thousand_uploads(api: Api, staging: Path) -> None:
    head = (
        "POST /v1/inspections?recipe=ring HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: image/png\r\nContent-Length: {ANNOUNCED}\r\n\r\n"
    )
    with ExitStack() as stack, growth(api) as largest:
        connections = [stack.enter_context(connect(api)) for _ in range(UPLOADS)]
        for connection in connections:
            connection.sendall(head.encode() + bytes(BEGUN))

        def all_are_stored_so_far() -> bool:
            for connection in connections:
                connection.sendall(b"\0")  # a slow client, but not a silent one
            return len(list(staging.iterdir())) == UPLOADS

        wait_until(all_are_stored_so_far)
        for connection in connections[:LARGE]:
            connection.sendall(bytes(SENT - BEGUN))
        assert submit(api.http).status_code == 202
        assert api.http.get("/readyz").status_code == 200
    assert largest[-1] < BOUND_OF_UPLOADS
    wait_until(lambda: not list(staging.iterdir()))
    assert submit(api.http).status_code == 202


FORMS = {
    "a repeated field": ("/v1/inspections", [("recipe", 60_000)]),
    "a repeated large field": ("/v1/inspections", [("items", 4_000_000)]),
    "a repeated large field of a batch": ("/v1/batches", [("items", 4_000_000)]),
    "a repeated field without a name": ("/v1/batches", [("", 60_000)]),
    "many fields": ("/v1/batches", [(f"field-{number}", 60_000) for number in range(5000)]),
    "an endless field": ("/v1/inspections", [("metadata", 300_000_000)]),
}
"""Per case: the path, and name and size of the fields that are repeated until the form is full."""


def form(fields: Sequence[tuple[str, int]]) -> Iterator[bytes]:
    """Yield a form in chunks."""
    for name, size in cycle(fields):
        yield f'\r\n--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        for _ in range(0, size, PIECE):
            yield b"x" * min(size, PIECE)


def send_until_answered(api: Api, path: str, pieces: Iterator[bytes]) -> tuple[int, bytes, int]:
    """Send a form until the api responds; return the status, the body, and the number of bytes sent."""
    sent = 0
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {FORM_BYTES}\r\n\r\n"
    )
    with connect(api) as connection:
        connection.sendall(head.encode())
        while sent < FORM_BYTES and not select.select([connection], [], [], 0)[0]:
            piece = next(pieces)[: FORM_BYTES - sent]
            connection.sendall(piece)
            sent += len(piece)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read(), sent


def test_hundreds_of_megabytes_of_fields_are_refused_early(api: Api, staging: Path) -> None:
    for name, (path, fields) in FORMS.items():
        with growth(api) as largest:
            status, body, sent = send_until_answered(api, path, form(fields))
        assert (status, json.loads(body)["code"]) == (422, "invalid_field"), name
        assert sent < EARLY_BYTES, name
        assert largest[-1] < BOUND_OF_FORMS, name
    assert list(staging.iterdir()) == []
    assert submit(api.http).status_code == 202
