"""Webhooks as receivers get them: with real HTTP and a real database, but without Celery."""

import datetime as dt
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, text
from standardwebhooks import Webhook, WebhookVerificationError

from core.delivery import deliveries
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.models import model_versions
from core.queue import finishing
from core.settings import Settings
from tests.fixtures.queued_work import IMAGE, MANIFEST
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, SECRET, Reply, running_receiver
from tests.fixtures.webhook_sending import Inspect, deliveries_of, only_delivery, register, sending
from worker.delivery import webhooks
from worker.delivery.webhooks import Sender

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - used in this file only


def test_an_event_is_signed_and_sent_once(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda *_: Reply(200, body=lambda: iter([b"th\x00ank\x1b[2J you"]))) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            [inspected] = inspect()
            [request] = receiver.wait()
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
    delivery = only_delivery(engine, endpoint_id)
    event = request.verified()
    assert set(event) == {"type", "timestamp", "data"}
    assert event["type"] == "inspection.completed"
    assert dt.datetime.fromisoformat(event["timestamp"]) == delivery.occurred_at
    assert (event["data"]["id"], event["data"]["verdict"]) == (str(inspected), "ok")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Linewatch/")
    assert request.headers["host"] == urlsplit(url).netloc
    assert request.id == str(delivery.message_id) == str(delivery.id)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(request.body, dict(request.headers))
    [attempt] = delivery.attempts
    assert (delivery.tries, attempt.outcome, attempt.status, attempt.answer) == (1, "delivered", 200, "th ank [2J you")
    assert delivery.next_try_at is None
    assert len(receiver.requests) == 1


def test_events_of_other_resources(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, events=["model.activated", "batch.completed"])
        with engine.begin() as connection:
            for sha256 in (b"\3", b"\4"):
                version, _ = model_versions.register(
                    connection, "ring", sha256=sha256 * 32, manifest=MANIFEST, actor="test"
                )
                model_versions.mark_ready(connection, version.id)
            model_versions.activate(connection, "ring", 3, actor="test")
            deliveries.send_test(connection, endpoint_id)
            [batch] = submission.accept(connection, [Submission([NewInspection(IMAGE, "ring")], as_batch=True)])
            assert isinstance(batch, Accepted)
            finishing.cancel(connection, batch.inspections[0].id)
        data = {event["type"]: event["data"] for event in (request.verified() for request in receiver.wait(3))}
    assert data["model.activated"]["version"] == 3
    assert "manifest" not in data["model.activated"]
    assert data["batch.completed"]["id"] == str(batch.batch_id)
    assert data["batch.completed"]["counts"]["cancelled"] == 1
    assert set(data["endpoint.test"]) == {"endpoint_id", "message"}
    assert data["endpoint.test"]["endpoint_id"] == str(endpoint_id)


def test_a_stopping_sender_releases_its_claims(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next sender sends it at once, although the lease has not expired."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    hung = threading.Event()

    def hang_at_first(number: int, _: Any) -> Reply:
        if number == 0:
            hung.wait(DEADLINE_SECONDS)
        return Reply()

    with running_receiver(hang_at_first) as (receiver, url):
        endpoint_id = register(engine, url)
        try:
            with sending(settings, url):
                inspect()
                receiver.wait(1)
            assert only_delivery(engine, endpoint_id).state == "pending"
            with sending(settings, url):
                first, second = receiver.wait(2, seconds=10)
                eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
        finally:
            hung.set()
    assert first.id == second.id


def test_both_secrets_sign_during_a_rotation(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    now = dt.datetime.now(dt.UTC)
    rotated = {"secret": OTHER_SECRET, "previous_secret": SECRET}
    with (
        running_receiver() as (during, during_url),
        running_receiver() as (after, after_url),
        sending(settings, during_url, after_url),
    ):
        register(engine, during_url, previous_secret_until=now + dt.timedelta(hours=1), **rotated)
        register(engine, after_url, previous_secret_until=now - dt.timedelta(seconds=1), **rotated)
        inspect()
        [request] = during.wait()
        [other] = after.wait()
    assert request.verified(SECRET) == request.verified(OTHER_SECRET)
    assert other.verified(OTHER_SECRET)
    with pytest.raises(WebhookVerificationError):
        other.verified(SECRET)


def test_events_whose_subject_was_deleted(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url):
        endpoint_id = register(engine, url)
        inspected = inspect(2)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM inspections WHERE id = :id"), {"id": inspected[0]})
        with sending(settings, url):
            [request] = receiver.wait()
            eventually(
                lambda: {delivery.subject_id: delivery.state for delivery in deliveries_of(engine, endpoint_id)},
                {str(inspected[0]): "cancelled", str(inspected[1]): "delivered"},
            )
    assert request.verified()["data"]["id"] == str(inspected[1])
    assert len(receiver.requests) == 1


def test_an_unexpected_exception_is_logged_and_sending_continues(
    engine: Engine,
    settings: Settings,
    inspect: Inspect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    close, failed = Sender._close_idle_queues, threading.Event()

    async def fail_once(sender: Sender) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        await close(sender)

    monkeypatch.setattr(Sender, "_close_idle_queues", fail_once)
    with running_receiver() as (receiver, url), sending(settings, url):
        register(engine, url)
        assert failed.wait(DEADLINE_SECONDS)
        inspect()
        receiver.wait()
    assert "RuntimeError: a bug" in caplog.text


def test_old_deliveries_are_deleted(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect(3)
        eventually(lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)}, {"delivered"})
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        assert deliveries.delete_old(connection, at_most=10, now=now + dt.timedelta(days=29)) == 0
        assert deliveries.delete_old(connection, at_most=2, now=now + dt.timedelta(days=31)) == 2
        assert deliveries.delete_old(connection, at_most=10, now=now + dt.timedelta(days=31)) == 1
        for table in ("deliveries", "delivery_attempts"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0  # noqa: S608
