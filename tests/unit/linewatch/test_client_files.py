"""Uploads and downloads of files: streamed, read again for retries, and written atomically."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import AsyncClient, Client, Refused, Unreachable
from tests.fixtures.mock_system import CLIENTS, INSPECTION, VERSION, problem

URL = "http://system.test"
BIG = 32 * 1024 * 1024
PIECE = 64 * 1024


class Streamed(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that reads uploads chunk by chunk, as a network does."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self.pieces: list[int] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.pieces = [len(piece) for piece in request.stream]
        return self._answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.pieces = [len(piece) async for piece in request.stream]
        return self._answer


@pytest.fixture(params=CLIENTS)
def client_type(request: pytest.FixtureRequest) -> Any:
    return CLIENTS[request.param]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(BIG)
    return path


@pytest.mark.parametrize("how", ["path", "open file", "bundle"])
def test_a_file_is_uploaded_in_chunks(client_type: Any, big: Path, how: str) -> None:
    network = Streamed(httpx.Response(200, json=VERSION if how == "bundle" else INSPECTION))
    with client_type(URL, transport=network) as lw, big.open("rb") as file:
        if how == "bundle":
            lw.upload_bundle("bottle", big)
        else:
            lw.submit(big if how == "path" else file)
    assert sum(network.pieces) >= BIG
    assert max(network.pieces) <= 2 * PIECE


def test_reading_a_file_does_not_block_the_event_loop() -> None:
    readers: set[int] = set()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            readers.add(threading.get_ident())
            return super().read(size)

    async def main() -> None:
        async with AsyncClient(URL, transport=Streamed(httpx.Response(202, json=INSPECTION))) as lw:
            await lw.submit(Watched(b"image" * PIECE))

    asyncio.run(main())
    assert readers
    assert threading.get_ident() not in readers


def test_an_open_file_is_sent_from_its_position_and_stays_open(
    client_type: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return problem(503, "queue_full") if len(bodies) == 1 else httpx.Response(202, json=INSPECTION)

    file = io.BytesIO(b"skipped:the image")
    file.seek(len(b"skipped:"))
    with client_type(URL, transport=httpx.MockTransport(answer)) as lw:
        lw.submit(file)
    assert len(bodies) == 2
    assert all(b"\r\n\r\nthe image\r\n" in body for body in bodies)
    assert not file.closed


def test_a_pipe_is_read_once_and_can_be_sent_again(client_type: Any) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return problem(503, "queue_full") if len(bodies) == 1 else httpx.Response(202, json=INSPECTION)

    with client_type(URL, transport=httpx.MockTransport(answer)) as lw:
        lw.submit(Pipe(b"the image"))
    assert all(b"the image" in body for body in bodies)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A response body that ends too early."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


def test_an_export_is_written_completely(client_type: Any, tmp_path: Path) -> None:
    urls: list[httpx.URL] = []
    answers: list[httpx.Response] = [
        httpx.Response(200, stream=Broken()),
        problem(503, "timeout"),
        httpx.Response(200, content=b"id,verdict\n"),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        urls.append(request.url)
        return answers.pop(0)

    target = tmp_path / "out.csv"
    target.write_text("before")
    with client_type(URL, transport=httpx.MockTransport(answer)) as lw:
        assert lw.export(target, format="csv", recipe="bottle", effective_verdict="ng") == target
    assert target.read_bytes() == b"id,verdict\n"
    assert dict(urls[0].params) == {"format": "csv", "recipe": "bottle", "effective_verdict": "ng"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("answer", [lambda: problem(404, "not_found"), lambda: httpx.Response(200, stream=Broken())])
def test_a_failed_download_keeps_the_existing_file(
    client_type: Any, tmp_path: Path, answer: Callable[[], httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.transport.RECONNECTS", 0)
    target = tmp_path / "bundle.tar"
    target.write_text("before")
    with (
        client_type(URL, transport=httpx.MockTransport(lambda _: answer())) as lw,
        pytest.raises((Refused, Unreachable)),
    ):
        lw.download_bundle("bottle", 1, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_an_export_can_be_written_to_a_device() -> None:
    with Client(URL, transport=httpx.MockTransport(lambda _: httpx.Response(200, content=b"x"))) as lw:
        lw.export("/dev/null")
    assert Path("/dev/null").is_char_device()
