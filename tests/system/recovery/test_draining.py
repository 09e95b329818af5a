"""SIGTERM to a worker: it finishes what it has begun, gives back the rest at once, and ends with 0."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis
from sqlalchemy import Engine, text

from core.queue.broker import LIVE_QUEUE
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png
from tests.fixtures.rolling import processes
from tests.fixtures.rolling.processes import NEW, Service
from tests.fixtures.running_system import upload_bundle
from tests.fixtures.webhook_receivers import Receiver, Reply, Request, running_receiver

IMAGES = 400
PATIENCE = 60
StartWorker = Callable[..., Service]


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    """`start_worker(kind, **variables)` starts a worker and waits until it is ready."""
    variables = os.environ | {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_DEVICE": "cpu",
        "LINEWATCH_SCRATCH": str(tmp_path / "scratch"),
        "PYTHONWARNINGS": "ignore::UserWarning:celery.platforms",
    }
    started: list[Service] = []

    def start(kind: str, **changes: str) -> Service:
        service = processes.worker(f"{kind}-{len(started)}", kind, variables | changes, tmp_path)
        started.append(service)
        service.start(NEW)
        service.wait_until_ready()
        return service

    yield start
    for service in started:
        service.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def count(engine: Engine, rows: str) -> int:
    with engine.begin() as connection:
        number: int = connection.execute(text("SELECT count(*) FROM " + rows)).scalar_one()  # noqa: S608 - constants
    return number


def test_a_scoring_worker_finishes_its_minibatches_and_gives_back_its_messages(
    settings: Settings, engine: Engine, start_worker: StartWorker, bundle: Path
) -> None:
    with running_api(settings) as http, redis.Redis.from_url(settings.redis_url.get_secret_value()) as queues:
        worker = start_worker("scoring")
        http.post("/v1/recipes", json={"name": "ring"}).raise_for_status()
        upload_bundle(http, "ring", bundle)
        files = [("images", (f"{number}.png", png(number % 16), "image/png")) for number in range(IMAGES)]
        assert http.post("/v1/batches", data={"recipe": "ring"}, files=files).status_code == 202
        wait_until(lambda: count(engine, "work WHERE state = 'running'") > 0)
        worker.stop()
        waiting = count(engine, "work")
        assert 0 < waiting < IMAGES
        assert count(engine, "work WHERE state = 'queued' AND attempt = 0 AND rescues = 0") == waiting
        # The next worker needs neither a lease to end nor the dispatcher: the messages are in the queue.
        assert queues.llen(LIVE_QUEUE) >= waiting // settings.minibatch
        start_worker("scoring")
        wait_until(lambda: count(engine, "inspections WHERE status = 'completed'") == IMAGES)
    assert count(engine, "inspections WHERE attempt > 1") == 0


@contextmanager
def _stopped_while_sending(
    settings: Settings, start_worker: StartWorker, receiver: Receiver, url: str
) -> Iterator[tuple[httpx.Client, str]]:
    """Stop an io worker while the receiver has its first webhook; yields a client and the path of the endpoint."""
    allow = url.split("/")[2]
    with running_api(settings, LINEWATCH_WEBHOOK_ALLOW=allow) as http:
        worker = start_worker("io", LINEWATCH_WEBHOOK_ALLOW=allow)
        endpoint = http.post("/v1/webhook-endpoints", json={"url": url, "events": []}).json()
        address = f"/v1/webhook-endpoints/{endpoint['id']}"
        assert http.post(f"{address}/test").status_code == 202
        receiver.wait(1)
        worker.stop()
        yield http, address


def test_an_io_worker_finishes_its_webhooks(settings: Settings, start_worker: StartWorker) -> None:
    def answer_late(_: int, __: Request) -> Reply:
        time.sleep(2)
        return Reply()

    with (
        running_receiver(answer_late) as (receiver, url),
        _stopped_while_sending(settings, start_worker, receiver, url) as (http, address),
    ):
        assert _states(http, address) == ["delivered"]
    assert len(receiver.requests) == 1


def test_a_webhook_that_is_not_answered_is_given_back(settings: Settings, start_worker: StartWorker) -> None:
    """The next worker sends it again at once, and does not wait for the lease to end."""

    def answer_too_late(number: int, _: Request) -> Reply:
        if number == 0:
            time.sleep(12)
        return Reply()

    with (
        running_receiver(answer_too_late) as (receiver, url),
        _stopped_while_sending(settings, start_worker, receiver, url) as (http, address),
    ):
        start_worker("io", LINEWATCH_WEBHOOK_ALLOW=url.split("/")[2])
        first, second = receiver.wait(2)
        assert first.id == second.id
        wait_until(lambda: _states(http, address) == ["delivered"])


def _states(http: httpx.Client, address: str) -> list[str]:
    return [delivery["state"] for delivery in http.get(f"{address}/deliveries").json()["items"]]
