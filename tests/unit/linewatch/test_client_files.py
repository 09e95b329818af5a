"""Files that go up and come down: streamed, read again for another try, whole or not at all."""

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import AsyncClient, Client, Refused, Unreachable
from tests.fixtures.mock_system import FACES, INSPECTION, VERSION, problem

URL = "http://system.test"
BIG = 32 * 1024 * 1024
PIECE = 64 * 1024


class Streamed(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Takes uploads as a network does: piece by piece."""

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


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> Any:
    return FACES[request.param]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.png"
    with path.open("wb") as file:
        file.truncate(BIG)
    return path


@pytest.mark.parametrize("how", ["path", "open file", "bundle"])
def test_a_file_goes_up_in_pieces(face: Any, big: Path, how: str) -> None:
    network = Streamed(httpx.Response(200, json=VERSION if how == "bundle" else INSPECTION))
    with face(URL, transport=network) as lw, big.open("rb") as file:
        if how == "bundle":
            lw.upload_bundle("bottle", big)
        else:
            lw.submit(big if how == "path" else file)
    assert sum(network.pieces) >= BIG
    assert max(network.pieces) <= 2 * PIECE


def test_a_disk_does_not_hold_up_the_event_loop() -> None:
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


def test_an_open_file_is_sent_from_where_it_stands_and_stays_open(face: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return problem(503, "queue_full") if len(bodies) == 1 else httpx.Response(202, json=INSPECTION)

    file = io.BytesIO(b"skipped:the image")
    file.seek(len(b"skipped:"))
    with face(URL, transport=httpx.MockTransport(answer)) as lw:
        lw.submit(file)
    assert len(bodies) == 2
    assert all(b"\r\n\r\nthe image\r\n" in body for body in bodies)
    assert not file.closed


def test_a_pipe_is_read_once_and_sent_as_often_as_needed(face: Any) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return problem(503, "queue_full") if len(bodies) == 1 else httpx.Response(202, json=INSPECTION)

    with face(URL, transport=httpx.MockTransport(answer)) as lw:
        lw.submit(Pipe(b"the image"))
    assert all(b"the image" in body for body in bodies)


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that ends too early."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"half"
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


def test_an_export_is_there_whole(face: Any, tmp_path: Path) -> None:
    asked: list[httpx.URL] = []
    answers: list[httpx.Response] = [
        httpx.Response(200, stream=Broken()),
        problem(503, "timeout"),
        httpx.Response(200, content=b"id,verdict\n"),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return answers.pop(0)

    target = tmp_path / "out.csv"
    target.write_text("before")
    with face(URL, transport=httpx.MockTransport(answer)) as lw:
        assert lw.export(target, format="csv", recipe="bottle", effective_verdict="ng") == target
    assert target.read_bytes() == b"id,verdict\n"
    assert dict(asked[0].params) == {"format": "csv", "recipe": "bottle", "effective_verdict": "ng"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("answer", [lambda: problem(404, "not_found"), lambda: httpx.Response(200, stream=Broken())])
def test_what_does_not_come_leaves_what_was_there(
    face: Any, tmp_path: Path, answer: Callable[[], httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.transport.RECONNECTS", 0)
    target = tmp_path / "bundle.tar"
    target.write_text("before")
    with (
        face(URL, transport=httpx.MockTransport(lambda _: answer())) as lw,
        pytest.raises((Refused, Unreachable)),
    ):
        lw.download_bundle("bottle", 1, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_no_regular_file_is_written_to() -> None:
    with Client(URL, transport=httpx.MockTransport(lambda _: httpx.Response(200, content=b"x"))) as lw:
        lw.export("/dev/null")
    assert Path("/dev/null").is_char_device()
