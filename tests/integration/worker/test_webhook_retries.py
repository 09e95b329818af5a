"""Webhooks whose receivers fail: retries, replays, and endpoints that are disabled."""

import datetime as dt
from email.utils import format_datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from core.delivery import deliveries
from core.errors import Refused
from core.settings import Settings
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import HangingReply, Reply, running_receiver
from tests.fixtures.webhook_sending import Inspect, endpoint_state, only_delivery, register, sending


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


def test_a_delivery_in_flight_is_sent_once_more(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    hanging = HangingReply()
    with (
        hanging,
        running_receiver(lambda number, request: hanging(number, request) if number == 0 else Reply()) as (
            receiver,
            url,
        ),
    ):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            receiver.wait(1)
            with engine.begin() as connection:
                deliveries.replay(connection, only_delivery(engine, endpoint_id).id)
                hanging.release()
                eventually(lambda: is_waiting_for_a_lock(engine), True)  # the answer is about to be recorded
            first, second = receiver.wait(2)
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
    assert first.id == second.id
    assert only_delivery(engine, endpoint_id).tries == 1


def is_waiting_for_a_lock(engine: Engine) -> bool:
    with engine.begin() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return int(connection.execute(text(query)).scalar_one()) > 0
