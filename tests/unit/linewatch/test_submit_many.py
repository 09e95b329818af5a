"""`submit_many`: concurrent uploads with few images in memory, and outcomes in input order."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from linewatch import AsyncClient, Client, NotSubmitted, Refused, Submitted, Unreachable
from linewatch.operations.inspections import Outcome
from tests.fixtures.mock_system import INSPECTION, problem

URL = "http://system.test"


def number_of(request: httpx.Request) -> int:
    """Return the number that an image of these tests contains."""
    return int(request.content.split(b"image ")[1].split(b"\r\n")[0])


class FakeServer:
    """Refuses some images and counts concurrent requests."""

    def __init__(self, refused: frozenset[int] = frozenset(), seconds: float = 0.0) -> None:
        self._refused = refused
        self._seconds = seconds
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0
        self.seen: list[int] = []

    def _enter(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            number = number_of(request)
            self.seen.append(number)
        if number in self._refused:
            return problem(415, "unsupported_media_type")
        return httpx.Response(202, json={**INSPECTION, "external_id": str(number)})

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def blocking(self, request: httpx.Request) -> httpx.Response:
        answer = self._enter(request)
        time.sleep(self._seconds * (1 + number_of(request) % 3))
        self._leave()
        return answer

    async def awaited(self, request: httpx.Request) -> httpx.Response:
        answer = self._enter(request)
        await asyncio.sleep(self._seconds * (1 + number_of(request) % 3))
        self._leave()
        return answer


class Source:
    """An iterable of images that counts how many were read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for number in range(self._count):
            self.taken += 1
            yield b"image %d" % number


def names(outcomes: list[Outcome]) -> list[str | None]:
    return [outcome.inspection.external_id if isinstance(outcome, Submitted) else None for outcome in outcomes]


def test_outcomes_are_in_input_order_despite_refusals() -> None:
    line = FakeServer(refused=frozenset({3, 17}), seconds=0.002)
    with Client(URL, transport=httpx.MockTransport(line.blocking)) as lw:
        outcomes = list(lw.submit_many(Source(40), concurrency=4, recipe="bottle"))
    assert [outcome.number for outcome in outcomes] == list(range(40))
    assert names(outcomes) == [None if number in (3, 17) else str(number) for number in range(40)]
    assert isinstance(outcomes[3], NotSubmitted)
    assert isinstance(outcomes[3].error, Refused)
    assert outcomes[3].error.code == "unsupported_media_type"
    assert outcomes[3].image == b"image 3"
    assert sorted(line.seen) == list(range(40))
    assert 2 <= line.most <= 4


def test_outcomes_are_in_input_order_with_the_async_client() -> None:
    line = FakeServer(refused=frozenset({3, 17}), seconds=0.002)

    async def main() -> list[Outcome]:
        async with AsyncClient(URL, transport=httpx.MockTransport(line.awaited)) as lw:
            return [outcome async for outcome in lw.submit_many(Source(40), concurrency=4, recipe="bottle")]

    outcomes = asyncio.run(main())
    assert [outcome.number for outcome in outcomes] == list(range(40))
    assert names(outcomes) == [None if number in (3, 17) else str(number) for number in range(40)]
    assert line.most == 4


def test_the_input_is_read_only_as_far_as_needed() -> None:
    line, source = FakeServer(), Source(1_000_000)
    with Client(URL, transport=httpx.MockTransport(line.blocking)) as lw:
        outcomes = lw.submit_many(source, concurrency=2)
        assert source.taken == 0
        for number in range(10):
            assert next(outcomes).number == number
            assert source.taken <= number + 1 + 4
        outcomes.close()
    assert len(line.seen) <= source.taken


def test_stopping_early_leaves_no_request_running() -> None:
    line, source = FakeServer(seconds=0.01), Source(1000)

    async def main() -> None:
        async with AsyncClient(URL, transport=httpx.MockTransport(line.awaited)) as lw:
            outcomes = lw.submit_many(source, concurrency=3)
            assert (await anext(outcomes)).number == 0
            await outcomes.aclose()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert source.taken <= 6


def test_a_slow_input_does_not_delay_finished_outcomes() -> None:
    """With a camera slower than the system, the first outcome arrives long before a hundred images are taken."""
    handled = threading.Semaphore(1)
    taken = 0

    def camera() -> Iterator[bytes]:
        nonlocal taken
        for number in range(1000):
            assert handled.acquire(timeout=20)
            taken += 1
            yield b"image %d" % number

    def answer(_: httpx.Request) -> httpx.Response:
        handled.release()
        return httpx.Response(202, json=INSPECTION)

    with Client(URL, transport=httpx.MockTransport(answer)) as lw:
        outcomes = lw.submit_many(camera(), concurrency=100)
        assert next(outcomes).number == 0
        assert taken < 100
        outcomes.close()


def test_fields_of_an_image_override_the_common_ones(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(202, json=INSPECTION)

    (tmp_path / "1.png").write_bytes(b"x")
    images: list[Path | tuple[Path, dict[str, str]]] = [
        tmp_path / "1.png",
        (tmp_path / "1.png", {"part_id": "SN-2"}),
        tmp_path / "missing.png",
    ]
    with Client(URL, transport=httpx.MockTransport(answer)) as lw:
        outcomes = list(lw.submit_many(images, concurrency=1, part_id="SN-1", recipe="bottle"))  # type: ignore[arg-type]
    assert [b"SN-1" in body for body in bodies] == [True, False]
    assert all(b"bottle" in body for body in bodies)
    assert isinstance(outcomes[2], NotSubmitted)
    assert isinstance(outcomes[2].error, FileNotFoundError)


def test_an_unreachable_system_ends_the_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linewatch.http.transport.RECONNECTS", 0)
    source = Source(1000)

    def answer(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with Client(URL, transport=httpx.MockTransport(answer)) as lw, pytest.raises(Unreachable):
        list(lw.submit_many(source, concurrency=2))
    assert source.taken <= 6


def test_a_concurrency_of_zero_is_refused() -> None:
    with Client(URL) as lw, pytest.raises(ValueError, match="concurrency"):
        list(lw.submit_many([b"image"], concurrency=0))


def test_a_blocking_input_does_not_block_the_event_loop() -> None:
    async def submitted() -> int:
        loop_went_on = threading.Event()

        def images() -> Iterator[bytes]:
            assert loop_went_on.wait(30)
            yield b"image 1"

        async with AsyncClient(URL, transport=httpx.MockTransport(FakeServer().awaited)) as lw:
            outcomes = lw.submit_many(images())
            first = asyncio.create_task(anext(outcomes))
            await asyncio.sleep(0)
            loop_went_on.set()
            number = (await first).number
            await outcomes.aclose()
            return number

    assert asyncio.run(submitted()) == 0
