"""How fast webhooks are sent to a receiver that fails often, and whether every event arrives: `make bench-webhooks`.

10,000 inspections are finished, each an event to one endpoint. The io worker, started as it always is, sends them to a
receiver that refuses 30 % of all requests, chosen by a seed. The yardstick is a bare loop of httpx posts of the same
bodies to the same receiver with as many requests in flight, which neither signs nor writes anything.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
import psutil
import uvicorn
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.database import create_pool, create_unbounded
from core.delivery import endpoints
from core.documents.documents import Inspection
from core.feed.events import EventType
from core.inspection import inspections
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.finished_inspections import finish_inspections, make_recipe
from tests.fixtures.servers import free_port

EVENTS = 10_000
FAILING = 0.3
SEED = 20
TRIES = 30  # the chance that one of all events fails so often is below 1e-11
IN_FLIGHT = 8
MINIBATCH = 500
LIMIT_SECONDS = 600


class Receiver:
    """An ASGI app. Whether it refuses depends on the seed, the message's id and how often that came."""

    def __init__(self) -> None:
        self.came: Counter[str] = Counter()
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.received: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        status, answer = (200, self.report()) if scope["method"] == "GET" else (self.take(scope["headers"], body), b"")
        length = str(len(answer)).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": answer})

    def take(self, headers: Any, body: bytes) -> int:
        message_id = dict(headers)[b"webhook-id"].decode()
        event = json.loads(body)["data"]["id"]
        self.came[message_id] += 1
        self.ids[event].add(message_id)
        drawn = hashlib.sha256(f"{SEED} {event} {self.came[message_id]}".encode()).digest()
        if int.from_bytes(drawn[:4]) / 2**32 < FAILING:
            return 503
        self.received.add(event)
        return 200

    def report(self) -> bytes:
        changed = sum(len(ids) > 1 for ids in self.ids.values())
        return json.dumps(
            {"requests": self.came.total(), "received": sorted(self.received), "ids_that_changed": changed}
        ).encode()


def receive(port: int) -> None:
    """Serve until killed."""
    uvicorn.run(Receiver(), port=port, log_level="error", access_log=False, lifespan="off")


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[psutil.Process]:
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, env=os.environ | environment)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def receiver(port: int, folder: Path) -> Iterator[str]:
    """A receiver that has received nothing yet."""
    url = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "benchmarks.webhooks", "receive", str(port)], folder / "receiver.log"):
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(url)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the receiver did not start"
                time.sleep(0.1)
        yield url


@dataclass(frozen=True)
class Run:
    """What a receiver got, in how many seconds, and how many of its processor's the process that sent it took."""

    seconds: float
    processor_seconds: float
    requests: int
    received: list[str]
    ids_that_changed: int

    @classmethod
    def of(cls, seconds: float, processor_seconds: float, url: str) -> Self:
        return cls(seconds, processor_seconds, **httpx.get(url, timeout=60).json())


def send(settings: Settings, engine: Engine, url: str, folder: Path) -> Run:
    """From the first attempt to the last delivery, by the io worker."""
    options = "--queues io --pool threads --concurrency 1 --without-gossip --without-mingle --without-heartbeat"
    environment = {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_WEBHOOK_ALLOW": url.removeprefix("http://"),
        "LINEWATCH_WEBHOOK_RETRY_SECONDS": ",".join(["0.2"] * (TRIES - 1)),
    }
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.io", "worker", *options.split()]
    with running(command, folder / "io.log", **environment) as worker:
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            with engine.begin() as connection:
                pending = connection.execute(
                    text("SELECT count(*) FROM deliveries WHERE state = 'pending'")
                ).scalar_one()
            if not pending:
                break
            assert time.monotonic() < deadline, (folder / "io.log").read_text()[-2000:]
            time.sleep(0.5)
        used = sum(worker.cpu_times()[:2])
    with engine.begin() as connection:
        seconds = connection.execute(
            text("""
                SELECT CAST(extract(epoch FROM (SELECT max(finished_at) FROM deliveries)
                    - (SELECT min(at) FROM delivery_attempts)) AS float8)
            """)
        ).scalar_one()
    return Run.of(seconds, used, url)


def post(url: str, bodies: list[tuple[str, bytes]]) -> Run:
    """Post each body until it is taken, with as many requests in flight as the sender has."""

    async def station(client: httpx.AsyncClient, left: list[tuple[str, bytes]]) -> None:
        while left:
            message_id, body = left.pop()
            answer = await client.post(f"{url}/hook", content=body, headers={"webhook-id": message_id})
            if not answer.is_success:
                left.append((message_id, body))

    async def every() -> float:
        left = list(bodies)
        async with httpx.AsyncClient(timeout=15, trust_env=False) as client:
            begun = time.perf_counter()
            await asyncio.gather(*(station(client, left) for _ in range(IN_FLIGHT)))
            return time.perf_counter() - begun

    used = time.process_time()
    seconds = asyncio.run(every())
    return Run.of(seconds, time.process_time() - used, url)


def bodies_of(engine: Engine, ids: list[UUID]) -> list[tuple[str, bytes]]:
    """What the bare loop posts: bodies as long as those that are sent."""
    with engine.begin() as connection:
        found = inspections.by_ids(connection, ids[:MINIBATCH])
    [one, *_] = [Inspection.of(inspection).model_dump(mode="json") for inspection in found.values()]
    event = {"type": EventType.INSPECTION_COMPLETED, "timestamp": "2026-01-02T03:04:05.678901Z"}
    return [(str(each), json.dumps({**event, "data": {**one, "id": str(each)}}).encode()) for each in ids]


def measure(folder: Path, port: int, events: int) -> None:
    """Print the figures of one run."""
    with EmbeddedServers(folder / "servers") as servers:
        settings = Settings(
            database_url=SecretStr(servers.database_url),
            redis_url=SecretStr(servers.redis_url),
            store_url=f"file://{folder}/store",
        )
        migrating = create_unbounded(settings, name="benchmark")
        migrate(migrating)
        migrating.dispose()
        engine = create_pool(settings, size=2, name="benchmark")
        with engine.begin() as connection:
            endpoints.create(
                connection,
                f"http://127.0.0.1:{port}/hook",
                events=[EventType.INSPECTION_COMPLETED],
                actor="benchmark",
            )
        make_recipe(engine)
        ids = [one for _ in range(events // MINIBATCH) for one in finish_inspections(engine, MINIBATCH)]
        with receiver(port, folder) as url:
            sent = send(settings, engine, url, folder)
        with receiver(port, folder) as url:
            bare = post(url, bodies_of(engine, ids))
        with engine.begin() as connection:
            counted = connection.execute(
                text("SELECT outcome, count(*) AS number FROM delivery_attempts GROUP BY outcome ORDER BY outcome")
            ).all()
        outcomes = {row.outcome: row.number for row in counted}
        engine.dispose()
    show(ids, sent, bare, outcomes)


def show(ids: list[UUID], sent: Run, bare: Run, outcomes: dict[str, int]) -> None:
    missing = {str(one) for one in ids} - set(sent.received)
    print(f"events                                {len(ids):8}")
    print(f"received at least once                {len(ids) - len(missing):8}  missing: {len(missing)}")
    print(f"events whose webhook-id changed       {sent.ids_that_changed:8}")
    print(f"requests                              {sent.requests:8}  {sent.requests / len(ids):.2f} for each event")
    print(f"tries on record                       {sum(outcomes.values()):8}  {outcomes}")
    rate, bare_rate = len(ids) / sent.seconds, len(ids) / bare.seconds
    print(f"deliveries/s                          {rate:8.1f}  {rate / bare_rate:.2f} of the bare loop")
    print(f"deliveries/s, bare loop of posts      {bare_rate:8.1f}  1.00 of itself, {bare.requests} requests")
    cost, bare_cost = (1000 * one.processor_seconds / one.requests for one in (sent, bare))
    print(f"processor time for a request, ms      {cost:8.2f}  {cost / bare_cost:.2f} of the bare loop")
    print(f"processor time, bare loop of posts    {bare_cost:8.2f}  1.00 of itself")
    assert not missing
    assert not sent.ids_that_changed


def main() -> int:
    """Measure, or be the receiver of a measurement."""
    if sys.argv[1:2] == ["receive"]:
        receive(int(sys.argv[2]))
        return 0
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        measure(folder, free_port(), int(sys.argv[1]) if sys.argv[1:] else EVENTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
