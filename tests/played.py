"""A system whose answers are played, and both faces of the client, so that one test proves the same of each."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from linewatch import AsyncClient, Client

ABSENT = """
    batch_id external_id part_id view lot_id line_id station_id anomaly_score threshold review_threshold is_anomaly
    verdict effective_verdict model error captured_at started_at finished_at
"""
INSPECTION: dict[str, Any] = {
    **dict.fromkeys(ABSENT.split()),
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c4",
    "status": "queued",
    "recipe": "bottle",
    "metadata": {},
    "reviews": [],
    "reasons": [],
    "image": {"sha256": "00", "width": 1, "height": 1, "bytes": 1, "media_type": "image/png"},
    "attempt": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "timings_ms": {},
}
BATCH: dict[str, Any] = {
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c4",
    "status": "running",
    "counts": {"total": 2, "queued": 2, "running": 0, "completed": 0, "failed": 0, "cancelled": 0},
    "created_at": "2026-01-01T00:00:00Z",
    "closed_at": None,
    "finished_at": None,
    "inspections": [],
    "errors": [],
}
VERSION: dict[str, Any] = {
    "recipe": "bottle",
    "version": 1,
    "state": "ready",
    "active": True,
    "sha256": "00",
    "rejection": None,
    "manifest": {},
    "thresholds": [],
    "created_at": "2026-01-01T00:00:00Z",
    "decided_at": None,
}
ABSENT_OF_RUN = """
    threshold review_threshold window time_zone schedule_id reason activation started_at finished_at
"""
RUN: dict[str, Any] = {
    **dict.fromkeys(ABSENT_OF_RUN.split()),
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c4",
    "status": "queued",
    "kind": "archive",
    "recipe": "bottle",
    "model": {"version": 2, "sha256": "00"},
    "source": {"where": {}},
    "recompute": False,
    "limits": {},
    "max_failure_rate": 0.1,
    "counts": {"total": None, "planned": 0, "completed": 0, "failed": 0, "ok": 0, "ng": 0, "review": 0}
    | {"ok_to_ng": 0, "ng_to_ok": 0, "skipped": 0},
    "progress": {"done": 0, "share": None, "rate": 0.0, "seconds_left": None},
    "created_by": "local",
    "created_at": "2026-01-01T00:00:00Z",
}
ENDPOINT: dict[str, Any] = {
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c4",
    "url": "https://mes.test/hook",
    "events": ["inspection.completed"],
    "recipes": None,
    "description": "",
    "state": "enabled",
    "disabled_because": None,
    "max_group_size": 1,
    "max_group_delay_ms": 0,
    "failing_since": None,
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}
DELIVERY: dict[str, Any] = {
    "id": "01a20be3-7a00-7fb1-bd84-3891d3e1a5c5",
    "endpoint_id": ENDPOINT["id"],
    "event": "endpoint.test",
    "subject_id": "x",
    "url": "https://mes.test/hook",
    "state": "pending",
    "tries": 0,
    "occurred_at": "2026-01-01T00:00:00Z",
    "next_try_at": "2026-01-01T00:00:00Z",
    "finished_at": None,
    "message_id": None,
    "attempts": [],
}

Answer = httpx.Response | httpx.TransportError
Handler = Callable[[httpx.Request], httpx.Response]


def problem(status: int, code: str, *, retry_after: str | None = None, **members: Any) -> httpx.Response:
    """A refusal as the system makes it."""
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return httpx.Response(status, json={"code": code, "detail": "No.", "status": status, **members}, headers=headers)


class Played:
    """Answers one request after the other; the last answer stays."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.read())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer


class Awaited:
    """An `AsyncClient` that is called as a `Client` is: each call runs in an event loop of its own making."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = AsyncClient(url, **options)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._runner.run(self._client.__aexit__(kind, error, traceback))
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made = operation(*args, **kwargs)
            return self._items(made) if isinstance(made, AsyncGenerator) else self._runner.run(made)

        return call if callable(operation) else operation

    def _items(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while True:
                try:
                    item = self._runner.run(anext(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(items.aclose())


FACES: dict[str, Callable[..., Any]] = {"blocking": Client, "awaited": Awaited}
