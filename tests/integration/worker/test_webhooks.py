"""Webhooks as receivers see them: real HTTP, a real database; only Celery is left out."""

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
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, SECRET, Reply, receiving
from tests.fixtures.webhook_sending import Inspect, endpoint_state, eventually, only, page, register, sending
from worker.delivery import webhooks
from worker.delivery.webhooks import Sender

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - of this file only


def make_callbacks(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET callback_url = :url WHERE state = 'pending'"), {"url": url})


def test_an_event_is_sent_signed_and_once(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(200, body=lambda: iter([b"th\x00ank\x1b[2J you"]))) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            [inspected] = inspect()
            [request] = receiver.wait()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    found = only(engine, endpoint_id)
    told = request.verified()
    assert set(told) == {"type", "timestamp", "data"}
    assert told["type"] == "inspection.completed"
    assert dt.datetime.fromisoformat(told["timestamp"]) == found.occurred_at
    assert (told["data"]["id"], told["data"]["verdict"]) == (str(inspected), "ok")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Linewatch/")
    assert request.headers["host"] == urlsplit(url).netloc
    assert request.id == str(found.message_id) == str(found.id)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(request.body, dict(request.headers))
    [attempt] = found.attempts
    assert (found.tries, attempt.outcome, attempt.status, attempt.answer) == (1, "delivered", 200, "th ank [2J you")
    assert found.next_try_at is None
    assert len(receiver.requests) == 1


def test_other_nouns(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, events=["model.activated", "batch.completed"])
        with engine.begin() as connection:
            for sha256 in (b"\3", b"\4"):
                made, _ = model_versions.register(
                    connection, "ring", sha256=sha256 * 32, manifest=MANIFEST, actor="test"
                )
                model_versions.mark_ready(connection, made.id)
            model_versions.activate(connection, "ring", 3, actor="test")
            deliveries.send_test(connection, endpoint_id)
            [batch] = submission.accept(connection, [Submission([NewInspection(IMAGE, "ring")], as_batch=True)])
            assert isinstance(batch, Accepted)
            finishing.cancel(connection, batch.inspections[0].id)
        told = {one["type"]: one["data"] for one in (request.verified() for request in receiver.wait(3))}
    assert told["model.activated"]["version"] == 3
    assert "manifest" not in told["model.activated"]
    assert told["batch.completed"]["id"] == str(batch.batch_id)
    assert told["batch.completed"]["counts"]["cancelled"] == 1
    assert set(told["endpoint.test"]) == {"endpoint_id", "message"}
    assert told["endpoint.test"]["endpoint_id"] == str(endpoint_id)


def test_what_fails_is_tried_again_under_the_same_id(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    statuses = [500, 404, 302, 204]
    with receiving(lambda number, _: Reply(statuses[number], {"Location": "/elsewhere"})) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.5,) * 3):
            inspect()
            requests = receiver.wait(4)
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert {(request.id, request.path) for request in requests} == {(requests[0].id, "/hook")}
    assert len({request.headers["webhook-timestamp"] for request in requests}) > 1  # each is signed anew
    for request in requests:
        request.verified()
    found = only(engine, endpoint_id)
    assert [one.status for one in found.attempts] == statuses
    assert [one.outcome for one in found.attempts] == ["refused_status"] * 3 + ["delivered"]
    assert len(receiver.requests) == 4


def test_the_last_try(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(503)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.05, 0.05)):
            inspect()
            eventually(lambda: only(engine, endpoint_id).state, "exhausted")
    found = only(engine, endpoint_id)
    assert (found.tries, len(found.attempts), len(receiver.requests)) == (3, 3, 3)
    assert found.next_try_at is None
    assert found.finished_at is not None


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after(engine: Engine, settings: Settings, inspect: Inspect, as_date: bool) -> None:
    def busy(number: int, _: Any) -> Reply:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3600)
        return Reply(429, {"Retry-After": format_datetime(until, usegmt=True) if as_date else "3600"})

    with receiving(busy) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries, 1)
    found = only(engine, endpoint_id)
    assert found.next_try_at is not None
    assert 3598 <= (found.next_try_at - found.attempts[0].at).total_seconds() < 3610
    assert len(receiver.requests) == 1


def test_an_endpoint_that_is_gone_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(410)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: endpoint_state(engine, endpoint_id), ("disabled", "answered 410 Gone"))
            assert only(engine, endpoint_id).attempts[0].outcome == "gone"
            found = only(engine, endpoint_id)
            assert (found.state, found.tries) == ("cancelled", 1)
            inspect()  # an event that it is not told of
    assert len(receiver.requests) == 1
    with engine.begin() as connection, pytest.raises(Refused, match="disabled"):
        deliveries.replay(connection, only(engine, endpoint_id).id)


def test_an_endpoint_that_fails_for_days_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(500)) as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        receiver.wait(2)
        assert endpoint_state(engine, endpoint_id) == ("enabled", None)
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET failing_since = failing_since - interval '5 days'"))
        disabled = ("disabled", "only failures for 5 days")
        eventually(lambda: endpoint_state(engine, endpoint_id), disabled)


def test_a_success_ends_the_failing(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda number, _: Reply(500 if number == 0 else 200)) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url, failing_since=dt.datetime.now(dt.UTC) - dt.timedelta(days=4))
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            assert connection.execute(text("SELECT failing_since FROM webhook_endpoints")).scalar_one() is None
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)


def test_a_sender_that_stops_gives_back_what_is_in_flight(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one sends it at once, although its lease has not run out."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    hung = threading.Event()

    def hang_at_first(number: int, _: Any) -> Reply:
        if number == 0:
            hung.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang_at_first) as (receiver, url):
        endpoint_id = register(engine, url)
        try:
            with sending(settings, url):
                inspect()
                receiver.wait(1)
            assert only(engine, endpoint_id).state == "pending"
            with sending(settings, url):
                first, second = receiver.wait(2, seconds=10)
                eventually(lambda: only(engine, endpoint_id).state, "delivered")
        finally:
            hung.set()
    assert first.id == second.id


def test_both_secrets_sign_while_a_secret_is_rotated(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    now = dt.datetime.now(dt.UTC)
    rotated = {"secret": OTHER_SECRET, "previous_secret": SECRET}
    with (
        receiving() as (during, during_url),
        receiving() as (after, after_url),
        sending(settings, during_url, after_url),
    ):
        register(engine, during_url, previous_secret_until=now + dt.timedelta(hours=1), **rotated)
        register(engine, after_url, previous_secret_until=now - dt.timedelta(seconds=1), **rotated)
        inspect()
        [one] = during.wait()
        [other] = after.wait()
    assert one.verified(SECRET) == one.verified(OTHER_SECRET)
    assert other.verified(OTHER_SECRET)
    with pytest.raises(WebhookVerificationError):
        other.verified(SECRET)


def test_replay(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            replayed = deliveries.replay(connection, only(engine, endpoint_id).id)
        assert (replayed.state, replayed.tries, replayed.finished_at) == ("pending", 0, None)
        first, second = receiver.wait(2)
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert first.id == second.id
    assert only(engine, endpoint_id).tries == 1
    assert len(only(engine, endpoint_id).attempts) == 2


def test_a_pending_one_is_tried_at_once_on_request(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda number, _: Reply(500 if number == 0 else 200)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(3600.0,)):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries, 1)
            with engine.begin() as connection:
                assert deliveries.replay(connection, only(engine, endpoint_id).id).tries == 1
            receiver.wait(2)
            eventually(lambda: only(engine, endpoint_id).state, "delivered")


def test_what_it_tells_of_is_gone(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url):
        endpoint_id = register(engine, url)
        inspected = inspect(2)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM inspections WHERE id = :id"), {"id": inspected[0]})
        with sending(settings, url):
            [request] = receiver.wait()
            eventually(
                lambda: {one.subject_id: one.state for one in page(engine, endpoint_id)},
                {str(inspected[0]): "cancelled", str(inspected[1]): "delivered"},
            )
    assert request.verified()["data"]["id"] == str(inspected[1])
    assert len(receiver.requests) == 1


def test_groups(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    """Full groups go at once, the rest when its oldest event has waited; a retry is the same group."""
    failed: set[str] = set()

    def fail_each_once(_: int, request: Any) -> Reply:
        known = request.id in failed
        failed.add(request.id)
        return Reply(200 if known else 500)

    with receiving(fail_each_once) as (receiver, url):
        endpoint_id = register(engine, url, max_group_size=4, max_group_delay_ms=2000)
        inspected = inspect(10)
        with sending(settings, url):
            requests = receiver.wait(6)
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    bodies: dict[str, set[str]] = {}
    for request in requests:
        told = request.verified()
        assert told["type"] == "group"
        shown = json.dumps([(one["id"], one["type"], one["data"]["id"]) for one in told["data"]])
        bodies.setdefault(request.id, set()).add(shown)
    assert [len(bodies), *{len(one) for one in bodies.values()}] == [3, 1]
    groups = sorted(json.loads(shown) for [shown] in bodies.values())  # by id: they are sent in parallel
    assert sorted(len(one) for one in groups) == [2, 4, 4]
    assert [subject for one in groups for _, _, subject in one] == [str(one) for one in inspected]
    found = {str(one.id): one for one in page(engine, endpoint_id)}
    assert {delivery_id for one in groups for delivery_id, _, _ in one} == set(found)
    rest = next(request for request in requests if len(request.verified()["data"]) == 2)
    waited = rest.headers["webhook-timestamp"]
    assert int(waited) >= int(next(iter(found.values())).occurred_at.timestamp()) + 2


def test_a_group_is_sent_again_as_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(5)
        receiver.wait(1)
        eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET max_group_size = 1"))
            deliveries.replay(connection, page(engine, endpoint_id)[2].id)
        first, second = receiver.wait(2)
    assert first.id == second.id
    assert first.verified() == second.verified()


def test_a_group_of_one_is_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=100)
        inspect()
        [request] = receiver.wait()
        told = request.verified()
    assert (told["type"], len(told["data"])) == ("group", 1)
    assert request.id != told["data"][0]["id"] == str(only(engine, endpoint_id).id)


def test_a_callback_goes_to_its_own_address_and_into_no_group(
    engine: Engine, settings: Settings, inspect: Inspect
) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(3)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE deliveries SET callback_url = :url, next_try_at = now() WHERE id = :id"),
                {"url": url + "/of-its-own", "id": page(engine, endpoint_id)[0].id},
            )
        [request] = receiver.wait()
        eventually(lambda: sorted(one.state for one in page(engine, endpoint_id)), ["delivered", "pending", "pending"])
    assert request.path == "/hook/of-its-own"
    assert request.verified()["type"] == EventType.INSPECTION_COMPLETED


def test_a_callback_that_is_gone_ends_alone(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    gone = lambda _, request: Reply(410 if request.path.endswith("/own") else 200)  # noqa: E731
    with receiving(gone) as (receiver, url):
        endpoint_id = register(engine, url)
        inspect()
        make_callbacks(engine, f"{url}/own")
        inspect()
        with sending(settings, url):
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered", "exhausted"})
    [called] = [one for one in page(engine, endpoint_id) if one.state == "exhausted"]
    assert (called.tries, [one.outcome for one in called.attempts]) == (1, ["gone"])
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)
    assert len(receiver.requests) == 2


def test_a_failure_that_nobody_foresaw_is_told_and_does_not_end_the_sending(
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
    with receiving() as (receiver, url), sending(settings, url):
        register(engine, url)
        assert failed.wait(DEADLINE_SECONDS)
        inspect()
        receiver.wait()
    assert "RuntimeError: a bug" in caplog.text


def test_a_claim_is_bounded_by_its_events(engine: Engine) -> None:
    """Whatever is left is claimed next; each endpoint's first message comes before anyone's second."""
    size = messages.EVENTS_AT_ONCE // 5
    ids = [register(engine, f"http://127.0.0.1/{number}", max_group_size=size) for number in range(8)]
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(2 * size)])
    claimed: list[list[messages.Message]] = []
    while not claimed or claimed[-1]:
        with engine.begin() as connection:
            claimed.append(messages.claim(connection, {}, room=64))
    assert [sum(len(one.claims) for one in each) for each in claimed] == [1000, 1000, 1000, 200, 0]
    assert len({one.endpoint_id for one in claimed[0]}) == 5
    assert {one.endpoint_id for each in claimed for one in each} == set(ids)


def test_a_message_is_claimed_however_many_events_it_brings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "EVENTS_AT_ONCE", 10)
    register(engine, "http://127.0.0.1/", max_group_size=25)
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(25)])
        [message] = messages.claim(connection, {}, room=64)
    assert len(message.claims) == 25


def test_what_many_events_tell_of_is_read_at_once(engine: Engine, inspect: Inspect) -> None:
    with engine.begin() as connection:
        new = Submission([NewInspection(IMAGE, "ring")], as_batch=True)
        accepted = submission.accept(connection, [new] * 20)
    ids = [str(one.batch_id) for one in accepted if isinstance(one, Accepted)]
    now = dt.datetime.now(dt.UTC)
    claims = [messages.Claim(UUID(int=n), 1, EventType.BATCH_COMPLETED, one, now) for n, one in enumerate(ids)]
    statements: list[str] = []
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
        told = payloads.load_documents(connection, claims, payloads.LOADERS)
    assert [told[UUID(int=number)]["id"] for number in range(20)] == ids
    assert len(statements) == 1


def test_old_deliveries_are_forgotten(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect(3)
        eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        assert deliveries.delete_old(connection, at_most=10, now=now + dt.timedelta(days=29)) == 0
        assert deliveries.delete_old(connection, at_most=2, now=now + dt.timedelta(days=31)) == 2
        assert deliveries.delete_old(connection, at_most=10, now=now + dt.timedelta(days=31)) == 1
        for table in ("deliveries", "delivery_attempts"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0  # noqa: S608
