"""`make bench-webhooks`: how fast webhooks are sent to a receiver that often fails, and whether every event arrives.

10,000 finished inspections are each an event for one endpoint. The io worker, started with its usual options, sends
them to a receiver that refuses 30 % of all requests, chosen by a seed. The reference is a bare loop that posts the same
bodies to the same receiver with as many requests in flight, without signing or storing anything.
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
from tests.fixtures.finished_inspections import finish_inspections, make_recipe_with_model
from tests.fixtures.servers import free_port

EVENTS = 10_000
FAILING = 0.3
SEED = 20
TRIES = 30  # the probability that any event fails this often is below 1e-11
IN_FLIGHT = 8
MINIBATCH = 500
LIMIT_SECONDS = 600


class Receiver:
    """An ASGI app that refuses requests, chosen by the seed, the event's id and the number of the attempt."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
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
        if scope["method"] == "GET":
            status, content = 200, self.report()
        else:
            status, content = self.take(scope["headers"], body), b""
        length = str(len(content)).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": content})

    def take(self, headers: Any, body: bytes) -> int:
        """Record a request and return its HTTP status."""
        message_id = dict(headers)[b"webhook-id"].decode()
        event = json.loads(body)["data"]["id"]
        self.requests[message_id] += 1
        self.ids[event].add(message_id)
        digest = hashlib.sha256(f"{SEED} {event} {self.requests[message_id]}".encode()).digest()
        if int.from_bytes(digest[:4]) / 2**32 < FAILING:
            return 503
        self.received.add(event)
        return 200

    def report(self) -> bytes:
        """Return the counts as JSON, with the fields of `Run`."""
        changed = sum(len(ids) > 1 for ids in self.ids.values())
        return json.dumps(
            {"requests": self.requests.total(), "received": sorted(self.received), "ids_that_changed": changed}
        ).encode()


def serve_receiver(port: int) -> None:
    """Serve until the process is killed."""
    uvicorn.run(Receiver(), port=port, log_level="error", access_log=False, lifespan="off")


@contextmanager
def run_process(command: list[str], log: Path, **environment: str) -> Iterator[psutil.Process]:
    """Run a command with its output in `log`, and terminate it at the end of the context."""
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, env=os.environ | environment)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def run_receiver(port: int, folder: Path) -> Iterator[str]:
    """Run a new receiver in its own process, and yield its URL."""
    url = f"http://127.0.0.1:{port}"
    with run_process([sys.executable, "-m", "benchmarks.webhooks", "receive", str(port)], folder / "receiver.log"):
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
    """The requests that a receiver got from one sender.

    Attributes:
        seconds: from the first request to the last.
        processor_seconds: CPU time of the sending process.
        requests: number of requests, refused ones included.
        received: ids of the accepted events.
        ids_that_changed: number of events that came with more than one `webhook-id`.
    """

    seconds: float
    processor_seconds: float
    requests: int
    received: list[str]
    ids_that_changed: int

    @classmethod
    def fetch(cls, seconds: float, processor_seconds: float, url: str) -> Self:
        """Read the receiver's report."""
        return cls(seconds, processor_seconds, **httpx.get(url, timeout=60).json())


def send_with_worker(settings: Settings, engine: Engine, url: str, folder: Path) -> Run:
    """Let the io worker send all deliveries. The time is that from the first attempt to the last delivery."""
    options = "--queues io --pool threads --concurrency 1 --without-gossip --without-mingle --without-heartbeat"
    environment = {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_WEBHOOK_ALLOW": url.removeprefix("http://"),
        "LINEWATCH_WEBHOOK_RETRY_SECONDS": ",".join(["0.2"] * (TRIES - 1)),
    }
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.io", "worker", *options.split()]
    with run_process(command, folder / "io.log", **environment) as worker:
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
        processor_seconds = sum(worker.cpu_times()[:2])
    with engine.begin() as connection:
        seconds = connection.execute(
            text("""
                SELECT CAST(extract(epoch FROM (SELECT max(finished_at) FROM deliveries)
                    - (SELECT min(at) FROM delivery_attempts)) AS float8)
            """)
        ).scalar_one()
    return Run.fetch(seconds, processor_seconds, url)


def post_in_loop(url: str, bodies: list[tuple[str, bytes]]) -> Run:
    """Post each body until it is accepted, with as many requests in flight as the io worker has."""

    async def post(client: httpx.AsyncClient, remaining: list[tuple[str, bytes]]) -> None:
        while remaining:
            message_id, body = remaining.pop()
            response = await client.post(f"{url}/hook", content=body, headers={"webhook-id": message_id})
            if not response.is_success:
                remaining.append((message_id, body))

    async def post_all() -> float:
        remaining = list(bodies)
        async with httpx.AsyncClient(timeout=15, trust_env=False) as client:
            started = time.perf_counter()
            await asyncio.gather(*(post(client, remaining) for _ in range(IN_FLIGHT)))
            return time.perf_counter() - started

    before = time.process_time()
    seconds = asyncio.run(post_all())
    return Run.fetch(seconds, time.process_time() - before, url)


def make_bodies(engine: Engine, ids: list[UUID]) -> list[tuple[str, bytes]]:
    """Return a message id and a body for each inspection. The bodies are as long as those of the io worker."""
    with engine.begin() as connection:
        rows = inspections.by_ids(connection, ids[:MINIBATCH])
    [document, *_] = [Inspection.of(row).model_dump(mode="json") for row in rows.values()]
    event = {"type": EventType.INSPECTION_COMPLETED, "timestamp": "2026-01-02T03:04:05.678901Z"}
    return [
        (str(inspection_id), json.dumps({**event, "data": {**document, "id": str(inspection_id)}}).encode())
        for inspection_id in ids
    ]


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
        make_recipe_with_model(engine)
        ids = [
            inspection_id for _ in range(events // MINIBATCH) for inspection_id in finish_inspections(engine, MINIBATCH)
        ]
        with run_receiver(port, folder) as url:
            sent = send_with_worker(settings, engine, url, folder)
        with run_receiver(port, folder) as url:
            bare = post_in_loop(url, make_bodies(engine, ids))
        with engine.begin() as connection:
            counts = connection.execute(
                text("SELECT outcome, count(*) AS number FROM delivery_attempts GROUP BY outcome ORDER BY outcome")
            ).all()
        outcomes = {row.outcome: row.number for row in counts}
        engine.dispose()
    print_figures(ids, sent, bare, outcomes)


def print_figures(ids: list[UUID], sent: Run, bare: Run, outcomes: dict[str, int]) -> None:
    missing = {str(inspection_id) for inspection_id in ids} - set(sent.received)
    print(f"events                                {len(ids):8}")
    print(f"received at least once                {len(ids) - len(missing):8}  missing: {len(missing)}")
    print(f"events whose webhook-id changed       {sent.ids_that_changed:8}")
    print(f"requests                              {sent.requests:8}  {sent.requests / len(ids):.2f} per event")
    print(f"recorded attempts                     {sum(outcomes.values()):8}  {outcomes}")
    rate, bare_rate = len(ids) / sent.seconds, len(ids) / bare.seconds
    print(f"deliveries/s                          {rate:8.1f}  {rate / bare_rate:.2f} × the bare loop")
    print(f"deliveries/s, bare loop of posts      {bare_rate:8.1f}  1.00 × itself, {bare.requests} requests")
    cost, bare_cost = (1000 * run.processor_seconds / run.requests for run in (sent, bare))
    print(f"CPU time per request, ms              {cost:8.2f}  {cost / bare_cost:.2f} × the bare loop")
    print(f"CPU time per request, bare loop       {bare_cost:8.2f}  1.00 × itself")
    assert not missing
    assert not sent.ids_that_changed


def main() -> int:
    """Measure, or serve the receiver of a measurement."""
    if sys.argv[1:2] == ["receive"]:
        serve_receiver(int(sys.argv[2]))
        return 0
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        measure(folder, free_port(), int(sys.argv[1]) if sys.argv[1:] else EVENTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
