"""Webhooks as receivers get them: with real HTTP and a real database, but without Celery."""

import datetime as dt
import json
import threading
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text
from standardwebhooks import Webhook, WebhookVerificationError

from core.delivery import deliveries
from core.delivery import sending as messages
from core.documents import payloads
from core.errors import Refused
from core.feed import events
from core.feed.events import Event, EventType
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.models import model_versions
from core.queue import finishing
from core.settings import Settings
from tests.fixtures.finished_inspections import IMAGE, MANIFEST
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, SECRET, Reply, running_receiver
from tests.fixtures.webhook_sending import (
    Inspect,
    deliveries_of,
    endpoint_state,
    eventually,
    only_delivery,
    register,
    sending,
)
from worker.delivery import webhooks
from worker.delivery.webhooks import Sender

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - used in this file only


def make_callbacks(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET callback_url = :url WHERE state = 'pending'"), {"url": url})


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


def test_a_failed_delivery_is_retried_with_the_same_id(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    statuses = [500, 404, 302, 204]
    with running_receiver(lambda number, _: Reply(statuses[number], {"Location": "/elsewhere"})) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.5,) * 3):
            inspect()
            requests = receiver.wait(4)
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
    assert {(request.id, request.path) for request in requests} == {(requests[0].id, "/hook")}
    assert len({request.headers["webhook-timestamp"] for request in requests}) > 1  # each attempt has its own signature
    for request in requests:
        request.verified()
    delivery = only_delivery(engine, endpoint_id)
    assert [attempt.status for attempt in delivery.attempts] == statuses
    assert [attempt.outcome for attempt in delivery.attempts] == ["refused_status"] * 3 + ["delivered"]
    assert len(receiver.requests) == 4


def test_the_last_attempt(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda *_: Reply(503)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.05, 0.05)):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).state, "exhausted")
    delivery = only_delivery(engine, endpoint_id)
    assert (delivery.tries, len(delivery.attempts), len(receiver.requests)) == (3, 3, 3)
    assert delivery.next_try_at is None
    assert delivery.finished_at is not None


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after(engine: Engine, settings: Settings, inspect: Inspect, as_date: bool) -> None:
    def busy(number: int, _: Any) -> Reply:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3600)
        return Reply(429, {"Retry-After": format_datetime(until, usegmt=True) if as_date else "3600"})

    with running_receiver(busy) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).tries, 1)
    delivery = only_delivery(engine, endpoint_id)
    assert delivery.next_try_at is not None
    assert 3598 <= (delivery.next_try_at - delivery.attempts[0].at).total_seconds() < 3610
    assert len(receiver.requests) == 1


def test_an_endpoint_that_answers_410_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda *_: Reply(410)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: endpoint_state(engine, endpoint_id), ("disabled", "answered 410 Gone"))
            assert only_delivery(engine, endpoint_id).attempts[0].outcome == "gone"
            delivery = only_delivery(engine, endpoint_id)
            assert (delivery.state, delivery.tries) == ("cancelled", 1)
            inspect()  # an event that the disabled endpoint does not get
    assert len(receiver.requests) == 1
    with engine.begin() as connection, pytest.raises(Refused, match="disabled"):
        deliveries.replay(connection, only_delivery(engine, endpoint_id).id)


def test_an_endpoint_that_fails_for_days_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda *_: Reply(500)) as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        receiver.wait(2)
        assert endpoint_state(engine, endpoint_id) == ("enabled", None)
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET failing_since = failing_since - interval '5 days'"))
        disabled = ("disabled", "only failures for 5 days")
        eventually(lambda: endpoint_state(engine, endpoint_id), disabled)


def test_a_success_resets_failing_since(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda number, _: Reply(500 if number == 0 else 200)) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url, failing_since=dt.datetime.now(dt.UTC) - dt.timedelta(days=4))
        inspect()
        eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            assert connection.execute(text("SELECT failing_since FROM webhook_endpoints")).scalar_one() is None
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)


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


def test_replay(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            replayed = deliveries.replay(connection, only_delivery(engine, endpoint_id).id)
        assert (replayed.state, replayed.tries, replayed.finished_at) == ("pending", 0, None)
        first, second = receiver.wait(2)
        eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
    assert first.id == second.id
    assert only_delivery(engine, endpoint_id).tries == 1
    assert len(only_delivery(engine, endpoint_id).attempts) == 2


def test_a_pending_delivery_can_be_sent_at_once(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda number, _: Reply(500 if number == 0 else 200)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(3600.0,)):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).tries, 1)
            with engine.begin() as connection:
                assert deliveries.replay(connection, only_delivery(engine, endpoint_id).id).tries == 1
            receiver.wait(2)
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")


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


def test_groups(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    """Full groups are sent at once, others when their oldest event has waited; a retry sends the same group."""
    failed: set[str] = set()

    def fail_each_once(_: int, request: Any) -> Reply:
        failed_before = request.id in failed
        failed.add(request.id)
        return Reply(200 if failed_before else 500)

    with running_receiver(fail_each_once) as (receiver, url):
        endpoint_id = register(engine, url, max_group_size=4, max_group_delay_ms=2000)
        inspected = inspect(10)
        with sending(settings, url):
            requests = receiver.wait(6)
            eventually(lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)}, {"delivered"})
    bodies: dict[str, set[str]] = {}
    for request in requests:
        group = request.verified()
        assert group["type"] == "group"
        body = json.dumps([(event["id"], event["type"], event["data"]["id"]) for event in group["data"]])
        bodies.setdefault(request.id, set()).add(body)
    assert [len(bodies), *{len(same_id) for same_id in bodies.values()}] == [3, 1]
    groups = sorted(json.loads(shown) for [shown] in bodies.values())  # sorted, because they are sent in parallel
    assert sorted(len(group) for group in groups) == [2, 4, 4]
    assert [subject for group in groups for _, _, subject in group] == [str(group) for group in inspected]
    stored = {str(delivery.id): delivery for delivery in deliveries_of(engine, endpoint_id)}
    assert {delivery_id for group in groups for delivery_id, _, _ in group} == set(stored)
    rest = next(request for request in requests if len(request.verified()["data"]) == 2)
    waited = rest.headers["webhook-timestamp"]
    assert int(waited) >= int(next(iter(stored.values())).occurred_at.timestamp()) + 2


def test_a_group_is_retried_as_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(5)
        receiver.wait(1)
        eventually(lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)}, {"delivered"})
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET max_group_size = 1"))
            deliveries.replay(connection, deliveries_of(engine, endpoint_id)[2].id)
        first, second = receiver.wait(2)
    assert first.id == second.id
    assert first.verified() == second.verified()


def test_a_group_of_one_event_is_sent_as_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=100)
        inspect()
        [request] = receiver.wait()
        group = request.verified()
    assert (group["type"], len(group["data"])) == ("group", 1)
    assert request.id != group["data"][0]["id"] == str(only_delivery(engine, endpoint_id).id)


def test_a_callback_is_sent_to_its_own_url_and_never_grouped(
    engine: Engine, settings: Settings, inspect: Inspect
) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(3)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE deliveries SET callback_url = :url, next_try_at = now() WHERE id = :id"),
                {"url": url + "/of-its-own", "id": deliveries_of(engine, endpoint_id)[0].id},
            )
        [request] = receiver.wait()
        eventually(
            lambda: sorted(delivery.state for delivery in deliveries_of(engine, endpoint_id)),
            ["delivered", "pending", "pending"],
        )
    assert request.path == "/hook/of-its-own"
    assert request.verified()["type"] == EventType.INSPECTION_COMPLETED


def test_a_callback_that_answers_410_does_not_disable_its_endpoint(
    engine: Engine, settings: Settings, inspect: Inspect
) -> None:
    gone = lambda _, request: Reply(410 if request.path.endswith("/own") else 200)  # noqa: E731
    with running_receiver(gone) as (receiver, url):
        endpoint_id = register(engine, url)
        inspect()
        make_callbacks(engine, f"{url}/own")
        inspect()
        with sending(settings, url):
            eventually(
                lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)}, {"delivered", "exhausted"}
            )
    [called] = [delivery for delivery in deliveries_of(engine, endpoint_id) if delivery.state == "exhausted"]
    assert (called.tries, [attempt.outcome for attempt in called.attempts]) == (1, ["gone"])
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)
    assert len(receiver.requests) == 2


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


def test_a_claim_is_limited_by_its_number_of_events(engine: Engine) -> None:
    """The remaining messages are claimed next; the first message of each endpoint comes before any second one."""
    size = messages.EVENTS_AT_ONCE // 5
    ids = [register(engine, f"http://127.0.0.1/{number}", max_group_size=size) for number in range(8)]
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(2 * size)])
    claimed: list[list[messages.Message]] = []
    while not claimed or claimed[-1]:
        with engine.begin() as connection:
            claimed.append(messages.claim(connection, {}, room=64))
    assert [sum(len(message.claims) for message in each) for each in claimed] == [1000, 1000, 1000, 200, 0]
    assert len({message.endpoint_id for message in claimed[0]}) == 5
    assert {message.endpoint_id for each in claimed for message in each} == set(ids)


def test_a_message_is_claimed_regardless_of_its_number_of_events(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "EVENTS_AT_ONCE", 10)
    register(engine, "http://127.0.0.1/", max_group_size=25)
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(25)])
        [message] = messages.claim(connection, {}, room=64)
    assert len(message.claims) == 25


def test_payloads_of_many_events_are_read_in_one_query(engine: Engine, inspect: Inspect) -> None:
    with engine.begin() as connection:
        new = Submission([NewInspection(IMAGE, "ring")], as_batch=True)
        accepted = submission.accept(connection, [new] * 20)
    ids = [str(outcome.batch_id) for outcome in accepted if isinstance(outcome, Accepted)]
    now = dt.datetime.now(dt.UTC)
    claims = [
        messages.Claim(UUID(int=n), 1, EventType.BATCH_COMPLETED, batch_id, now) for n, batch_id in enumerate(ids)
    ]
    statements: list[str] = []
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        documents = payloads.load_documents(connection, claims, payloads.LOADERS)
    assert [documents[UUID(int=number)]["id"] for number in range(20)] == ids
    assert len(statements) == 1


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
