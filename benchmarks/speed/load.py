"""Sends images over HTTP from a process of its own, as cheaply as it can: the servers need the cores.

`python -m benchmarks.speed.load` reads a `Load` as JSON from standard input and writes a `Sent` to standard output.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import cast

import uvloop
from pydantic import TypeAdapter

from benchmarks.speed.images import Kind, make_scenes, suffix

_LIMIT_SECONDS = 600.0
_BOUNDARY = "9f3c1d0c5e8b4a76"
_END_OF_HEADERS = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(frozen=True)
class Target:
    """How an image is sent.

    Attributes:
        port: of the server, on the loopback interface.
        path: of the requests, with the query.
        form_field: the name of the field of a form that the image is sent in; empty to send it as the body.
    """

    port: int
    path: str
    form_field: str = ""


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        target: where they are sent.
        kind: of the images.
        number: of images.
        interval: seconds from one image to the next, whether or not the answers keep up; 0 for all of them at once.
            None sends each image when a connection is free.
        first: the number of the first image, so that two loads have no image in common.
        connections: that are open at once; each sends its next image once the last one is answered.
    """

    target: Target
    kind: Kind
    number: int
    interval: float | None = None
    first: int = 0
    connections: int = 32


@dataclass(frozen=True)
class Sent:
    """What came of it. Times are seconds of `time.time`.

    Attributes:
        due: when each image was due: by the interval, or when its connection became free.
        answered: when its answer had arrived.
        answers: the bodies.
        cpu_seconds: that the sending took.
    """

    due: list[float]
    answered: list[float]
    answers: list[str]
    cpu_seconds: float


def send(load: Load) -> Sent:
    """Send the load from another process, and wait for it."""
    command = [sys.executable, "-m", "benchmarks.speed.load"]
    with tempfile.TemporaryFile() as output:  # after uvloop has run, writes to a pipe can be cut short
        subprocess.run(command, input=TypeAdapter(Load).dump_json(load), stdout=output, check=True)
        output.seek(0)
        return TypeAdapter(Sent).validate_json(output.read())


class _Connection(asyncio.Protocol):
    """A connection that sends one request at a time, and opens anew if the server has closed it while it was idle."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(_END_OF_HEADERS)
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        begin = head.index(_LENGTH) + len(_LENGTH)
        length = int(head[begin:].partition(b"\r\n")[0])
        if len(self._received) < end + len(_END_OF_HEADERS) + length:
            return
        body = bytes(self._received[end + len(_END_OF_HEADERS) :])
        self._received.clear()
        assert self._answer is not None
        self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    async def open(self) -> None:
        """Connect to the server."""
        self._received.clear()
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)

    async def request(self, parts: list[bytes]) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer."""
        was_open = self._transport is not None
        try:
            return await self._exchange(parts)
        except ConnectionError:
            if not was_open:
                raise
            return await self._exchange(parts)  # it was closed in the moment in which the request was sent

    async def _exchange(self, parts: list[bytes]) -> tuple[int, bytes]:
        if self._transport is None:
            await self.open()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(parts)
        return await self._answer


class _Requests:
    """Builds the requests of a load from parts, without copying the scenes."""

    def __init__(self, load: Load) -> None:
        self._scenes = make_scenes(load.kind)
        self._before, self._after, media_type = b"", b"", load.kind.media_type
        if load.target.form_field:
            disposition = f'form-data; name="{load.target.form_field}"; filename="part"'
            start = f"--{_BOUNDARY}\r\nContent-Disposition: {disposition}\r\nContent-Type: {media_type}\r\n\r\n"
            self._before, self._after = start.encode(), f"\r\n--{_BOUNDARY}--\r\n".encode()
            media_type = f"multipart/form-data; boundary={_BOUNDARY}"
        self._first = load.first
        self._head = (
            f"POST {load.target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\nContent-Length: "
        )

    def parts(self, number: int) -> list[bytes]:
        """Return the request with this image of the load."""
        number += self._first
        body = [self._before, self._scenes[number % len(self._scenes)], suffix(number), self._after]
        return [f"{self._head}{sum(map(len, body))}\r\n\r\n".encode(), *filter(None, body)]


def due_time(begun: float, number: int, interval: float | None) -> float:
    """Return when an image is due. It does not depend on the answers to earlier ones, unless there is no interval."""
    return time.time() if interval is None else begun + number * interval


async def _send_all(load: Load) -> Sent:
    requests, numbers = _Requests(load), iter(range(load.number))
    due, answered, answers = [0.0] * load.number, [0.0] * load.number, [""] * load.number
    connections = [_Connection(load.target.port) for _ in range(load.connections)]
    for connection in connections:
        await connection.open()
    begun, cpu_before = time.time(), time.process_time()

    async def send(connection: _Connection) -> None:
        for number in numbers:  # shared: each connection takes the next image
            due[number] = due_time(begun, number, load.interval)
            if (pause := due[number] - time.time()) > 0:
                await asyncio.sleep(pause)
            status, body = await connection.request(requests.parts(number))
            answered[number] = time.time()
            if not 200 <= status < 300:
                raise RuntimeError(f"the server answered {status}: {body[:500]!r}")
            answers[number] = body.decode()

    async with asyncio.timeout(_LIMIT_SECONDS), asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(send(connection))
    return Sent(due, answered, answers, time.process_time() - cpu_before)


if __name__ == "__main__":
    sent = uvloop.run(_send_all(TypeAdapter(Load).validate_json(sys.stdin.buffer.read())))
    sys.stdout.buffer.write(TypeAdapter(Sent).dump_json(sent))
