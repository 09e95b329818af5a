"""Deliveries over HTTP, sent by a real io worker, which may be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine, text

from core.feed.events import EventType
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, SECRET, Reply, Request, running_receiver

OPTIONS = "--queues io --pool threads --concurrency 1 --without-gossip --without-mingle --without-heartbeat"


@contextmanager
def io_worker(settings: Settings, allow: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run an io worker with the command of the README."""
    environment = os.environ | {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_WEBHOOK_ALLOW": allow,
        "LINEWATCH_WEBHOOK_RETRY_SECONDS": "0.1,0.1,0.1,0.1,0.1,0.1,0.1",
        "PYTHONWARNINGS": "ignore::UserWarning:celery.platforms",
        **variables,
    }
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.io", "worker", *OPTIONS.split()]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def eventually(http: httpx.Client, address: str, **expected: Any) -> dict[str, Any]:
    """Wait until the document at this path has the expected fields, and return it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        document: dict[str, Any] = http.get(address).raise_for_status().json()
        if {name: document[name] for name in expected} == expected:
            return document
        assert time.monotonic() < deadline, document
        time.sleep(0.05)


def create(http: httpx.Client, url: str, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/webhook-endpoints", json={"url": url, "events": [], **fields})
    assert answer.status_code == 201, answer.text
    endpoint: dict[str, Any] = answer.json()
    return endpoint


def test_a_delivery_is_retried_listed_and_replayed(settings: Settings) -> None:
    with running_receiver(lambda number, _: Reply(503 if number == 0 else 200)) as (receiver, url):
        allow = urlsplit(url).netloc
        with running_api(settings, LINEWATCH_WEBHOOK_ALLOW=allow) as http, io_worker(settings, allow) as worker:
            endpoint = create(http, url)
            listing = f"/v1/webhook-endpoints/{endpoint['id']}/deliveries"
            test = http.post(f"/v1/webhook-endpoints/{endpoint['id']}/test")
            assert (test.status_code, test.json()["state"], test.json()["event"]) == (202, "pending", "endpoint.test")
            address = f"/v1/deliveries/{test.json()['id']}"
            delivery = eventually(http, address, state="delivered")
            assert [attempt["status"] for attempt in delivery["attempts"]] == [503, 200]
            first, second = receiver.wait(2)
            assert first.id == second.id == delivery["message_id"]
            assert first.verified(endpoint["secret"]) == second.verified(endpoint["secret"])

            replay = http.post(f"{address}/replay")
            assert (replay.status_code, replay.json()["message_id"]) == (202, first.id)
            assert receiver.wait(3)[2].id == first.id
            eventually(http, address, state="delivered", tries=1)

            second_id = http.post(f"/v1/webhook-endpoints/{endpoint['id']}/test").json()["id"]
            eventually(http, f"/v1/deliveries/{second_id}", state="delivered")
            pages = [http.get(listing, params={"limit": 1}).json()]
            pages.append(http.get(listing, params={"limit": 1, "cursor": pages[0]["next_cursor"]}).json())
            assert [[delivery["id"] for delivery in page["items"]] for page in pages] == [
                [second_id],
                [test.json()["id"]],
            ]
            assert pages[1]["next_cursor"] is None
            assert http.get(listing, params={"state": "pending"}).json()["items"] == []
            assert len(http.get(listing, params={"state": "delivered"}).json()["items"]) == 2

            http.patch(f"/v1/webhook-endpoints/{endpoint['id']}", json={"state": "disabled"}).raise_for_status()
            for path in (f"{address}/replay", f"/v1/webhook-endpoints/{endpoint['id']}/test"):
                refused = http.post(path)
                assert (refused.status_code, refused.json()["code"]) == (409, "invalid_transition")

            worker.send_signal(signal.SIGTERM)
            _, log = worker.communicate(timeout=30)
            assert worker.returncode == 0
            assert "whsec_" not in log
            assert "/hook" not in log


def test_invalid_delivery_requests_are_refused(settings: Settings) -> None:
    unknown = "0193e0c8-0000-7000-8000-000000000000"
    with running_api(settings) as http:
        for method, path in (
            ("GET", f"/v1/webhook-endpoints/{unknown}/deliveries"),
            ("POST", f"/v1/webhook-endpoints/{unknown}/test"),
            ("GET", f"/v1/deliveries/{unknown}"),
            ("POST", f"/v1/deliveries/{unknown}/replay"),
            ("GET", "/v1/deliveries/nonsense"),
        ):
            assert http.request(method, path).status_code == 404, path
        for query in ("state=lost", "cursor=nonsense", "limit=0", "status=pending"):
            assert http.get(f"/v1/webhook-endpoints/{unknown}/deliveries?{query}").status_code == 422, query


def queue(engine: Engine, url: str, number: int) -> None:
    """Insert events for one endpoint."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                WITH endpoint AS (
                    INSERT INTO webhook_endpoints (url, events, secret) VALUES (:url, '{}', :secret) RETURNING id
                )
                INSERT INTO deliveries (endpoint_id, event, subject_id)
                SELECT id, :event, CAST(id AS text) FROM endpoint, generate_series(1, :number)
            """),
            {"url": url, "secret": SECRET, "event": EventType.ENDPOINT_TEST, "number": number},
        )


def test_a_killed_sender_loses_nothing(settings: Settings, engine: Engine) -> None:
    """Claimed deliveries are sent again once their lease has expired; the test shortens the lease."""
    number = 400

    def slowly(_: int, __: Request) -> Reply:
        time.sleep(0.02)
        return Reply()

    with running_receiver(slowly) as (receiver, url):
        allow = urlsplit(url).netloc
        queue(engine, url, number)
        with io_worker(settings, allow) as worker:
            receiver.wait(number // 4)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        with engine.begin() as connection:
            held = connection.execute(
                text("UPDATE deliveries SET next_try_at = now() WHERE state = 'pending' AND claim > 0 RETURNING id")
            ).all()
            assert held
        assert len({request.id for request in receiver.requests}) < number
        with io_worker(settings, allow):
            deadline = time.monotonic() + DEADLINE_SECONDS
            while True:
                with engine.begin() as connection:
                    rows = connection.execute(
                        text("SELECT state, count(*) AS number FROM deliveries GROUP BY state")
                    ).all()
                states: dict[str, int] = {row.state: row.number for row in rows}
                if states == {"delivered": number}:
                    break
                assert time.monotonic() < deadline, states
                time.sleep(0.05)
    assert len({request.id for request in receiver.requests}) == number


def test_deliveries_are_sent_without_redis(settings: Settings, engine: Engine) -> None:
    with running_receiver() as (receiver, url):
        queue(engine, url, 3)
        with io_worker(settings, urlsplit(url).netloc, LINEWATCH_REDIS_URL="redis://127.0.0.1:1/0"):
            receiver.wait(3)


@pytest.mark.parametrize("content", [None, "nonsense"])
def test_an_invalid_ca_file_is_a_one_line_error(settings: Settings, tmp_path: Any, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    with io_worker(settings, "", LINEWATCH_WEBHOOK_CA_FILE=str(file)) as worker:
        _, log = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert log.startswith(f"LINEWATCH_WEBHOOK_CA_FILE={file} cannot be read: ")
    assert log.count("\n") == 1
