"""The sync and the async executor that operations run on.

Operations are coroutines that use an `Executor`. On `SyncExecutor` a coroutine never suspends, so `run` finishes it in
a single step, in the calling thread. On `AsyncExecutor` they run in the caller's event loop.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, Self, TypeVar

import httpx

_WORTH_A_THREAD = 64 * 1024  # bytes; the size in which httpx reads a file

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]


class TaskPool(Protocol[T]):
    """Runs at most `size` jobs at the same time and returns their results in the order of their start."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None:
        """Drop jobs that have not started, and end those that have."""

    def __len__(self) -> int:
        """The number of started jobs whose result was not taken."""
        ...

    @property
    def oldest_is_done(self) -> bool:
        """Whether `oldest` would return at once; False if there is no job."""
        ...

    def start(self, job: Job[T]) -> None: ...

    async def oldest(self) -> T:
        """Wait for the oldest job and take its result, or raise its exception."""
        ...


class Executor(Protocol):
    """Sends requests, sleeps, and does work that would block an event loop."""

    @property
    def http(self) -> httpx.Client | httpx.AsyncClient: ...

    async def send(self, request: httpx.Request) -> httpx.Response: ...

    async def download(self, request: httpx.Request, take: Callable[[bytes], object]) -> httpx.Response:
        """Pass the body to `take`, piece by piece, if the status is a success; otherwise it is in the response."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    async def work(self, job: Callable[[], T]) -> T:
        """Call a function that uses the disk."""
        ...

    def task_pool(self, size: int) -> TaskPool[Any]: ...

    async def close(self) -> None: ...


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine on a sync executor."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("an operation was suspended on a sync executor")


def iterate(items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """The items of an asynchronous generator on a sync executor."""
    try:
        while True:
            try:
                item = run(_following(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(_closed(items))


async def _following(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _closed(items: AsyncGenerator[T, None]) -> None:
    await items.aclose()


class SyncExecutor:
    """httpx.Client and time.sleep; safe to use from several threads."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    async def send(self, request: httpx.Request) -> httpx.Response:
        return self.http.send(request)

    async def download(self, request: httpx.Request, take: Callable[[bytes], object]) -> httpx.Response:
        response = self.http.send(request, stream=True)
        try:
            if not response.is_success:
                response.read()
                return response
            for piece in response.iter_bytes():
                take(piece)
            return response
        finally:
            response.close()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def work(self, job: Callable[[], T]) -> T:
        return job()

    def task_pool(self, size: int) -> TaskPool[Any]:
        return _Threads(size)

    async def close(self) -> None:
        self.http.close()


class _Threads(TaskPool[T]):
    """A pool of threads that run blocking operations."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="linewatch")
        self._started: deque[Future[T]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self._started)

    @property
    def oldest_is_done(self) -> bool:
        return bool(self._started) and self._started[0].done()

    def start(self, job: Job[T]) -> None:
        self._started.append(self._pool.submit(lambda: run(job())))

    async def oldest(self) -> T:
        return self._started.popleft().result()


class AsyncExecutor:
    """httpx.AsyncClient and asyncio.sleep; files are read and written in threads."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def send(self, request: httpx.Request) -> httpx.Response:
        return await self.http.send(_read_in_threads(request))

    async def download(self, request: httpx.Request, take: Callable[[bytes], object]) -> httpx.Response:
        response = await self.http.send(request, stream=True)
        try:
            if not response.is_success:
                await response.aread()
                return response
            async for piece in response.aiter_bytes():
                await asyncio.to_thread(take, piece)
            return response
        finally:
            await response.aclose()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def work(self, job: Callable[[], T]) -> T:
        return await asyncio.to_thread(job)

    def task_pool(self, size: int) -> TaskPool[Any]:
        return _Tasks(size)

    async def close(self) -> None:
        await self.http.aclose()


class _Tasks(TaskPool[T]):
    """A pool of tasks."""

    def __init__(self, size: int) -> None:
        self._places = asyncio.Semaphore(size)
        self._started: deque[asyncio.Task[T]] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._started:
            task.cancel()
        await asyncio.gather(*self._started, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._started)

    @property
    def oldest_is_done(self) -> bool:
        return bool(self._started) and self._started[0].done()

    def start(self, job: Job[T]) -> None:
        self._started.append(asyncio.create_task(self._in_turn(job)))

    async def _in_turn(self, job: Job[T]) -> T:
        async with self._places:
            return await job()

    async def oldest(self) -> T:
        task = self._started[0]
        result = await task  # remove it only now: if this wait is cancelled, `__aexit__` must end the task
        self._started.popleft()
        return result


class _ReadInThreads(httpx.AsyncByteStream):
    """A body that is read from a disk, in threads."""

    def __init__(self, body: httpx.SyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self._body)
        while piece := await asyncio.to_thread(_gathered, pieces):
            yield piece


def _gathered(pieces: Iterator[bytes]) -> bytes:
    """The next pieces, joined to a size that is worth a thread; empty after the last."""
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _WORTH_A_THREAD:
            break
    return bytes(gathered)


def _read_in_threads(request: httpx.Request) -> httpx.Request:
    """The request, with a body that does not block the event loop while it is read."""
    if isinstance(request.stream, httpx.SyncByteStream) and not isinstance(request.stream, httpx.ByteStream):
        request.stream = _ReadInThreads(request.stream)
    return request
