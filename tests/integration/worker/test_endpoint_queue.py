"""Whom a sender calls next: slow, dead and failing receivers hold up no others, and what waits can be called off."""

import datetime as dt
import threading
import time
from typing import Any

import pytest
from sqlalchemy import Engine

from core.delivery import deliveries, endpoints
from core.feed import events
from core.feed.events import Callback, Event, EventType
from core.settings import Settings
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, HangingReply, Reply, running_receiver
from tests.fixtures.webhook_sending import Inspect, deliveries_of, delivery_states, endpoint_state, register, sending
from worker.delivery import endpoint_queue, http_sender, webhooks


def test_deliveries_of_a_deleted_endpoint_are_not_sent(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda number, _: Reply(200 if number == 0 else 410)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            receiver.wait()
            inspect(60)
            eventually(lambda: endpoint_state(engine, endpoint_id), ("disabled", "answered 410 Gone"))
    assert len(receiver.requests) <= 1 + endpoint_queue.CALLS_PER_QUEUE


def test_queued_deliveries_are_not_sent_after_their_endpoint_was_disabled(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_queue, "FRESH_SECONDS", 0.2)
    hang = HangingReply()
    with (
        running_receiver(hang) as (slow, slow_url),
        running_receiver() as (alive, url),
        sending(settings, slow_url, url),
    ):
        endpoint_id = register(engine, slow_url)
        with hang:
            inspect(4)
            last = slow.wait(2)[-1]
            with engine.begin() as connection:
                endpoints.disable(connection, endpoint_id, "by hand")
            eventually(lambda: time.monotonic() > last.at + 0.2, True)
        register(engine, url)
        inspect()
        alive.wait()
    assert len(slow.requests) == 2


def test_queued_deliveries_are_sent_to_the_current_url(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_queue, "FRESH_SECONDS", 0.2)
    hang = HangingReply()
    with (
        running_receiver(hang) as (before, old_url),
        running_receiver() as (after, url),
        sending(settings, old_url, url),
    ):
        endpoint_id = register(engine, old_url)
        with hang:
            inspect(4)
            last = before.wait(2)[-1]
            with engine.begin() as connection:
                endpoints.change(connection, endpoint_id, actor="test", url=url)
                secret = endpoints.rotate_secret(connection, endpoint_id, actor="test").secret.get_secret_value()
            eventually(lambda: time.monotonic() > last.at + 0.2, True)
        for request in after.wait(2):
            request.verified(secret)
    assert len(before.requests) == 2


def test_a_hanging_receiver_delays_no_other(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    hang = HangingReply()
    with running_receiver(hang) as (dead, dead_url), running_receiver() as (alive, url):
        register(engine, dead_url)
        endpoint_id = register(engine, url)
        with hang, sending(settings, dead_url, url):
            inspect(100)
            dead.wait(2)
            alive.wait(100)
            eventually(
                lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)},
                {"delivered"},
            )
            assert len(dead.requests) == 2
            hang.release()


def test_many_hanging_receivers_leave_slots_for_others(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(endpoint_queue, "MAX_CALLS", 64)
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 2 * DEADLINE_SECONDS)
    hang = HangingReply(2 * DEADLINE_SECONDS)
    with running_receiver(hang) as (dead, dead_url), running_receiver() as (alive, url):
        for number in range(20):
            register(engine, f"{dead_url}/{number}")
        inspect(10)
        with hang, sending(settings, dead_url, url):
            dead.wait(40)
            register(engine, url)
            inspect(50)
            alive.wait(50)
            hang.release()


def test_receivers_that_become_slow_use_at_most_half_of_the_slots(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(endpoint_queue, "MAX_CALLS", 16)
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 2 * DEADLINE_SECONDS)
    over, slow = threading.Event(), threading.Event()

    def hang_later(*_: Any) -> Reply:
        if slow.is_set():
            over.wait(2 * DEADLINE_SECONDS)
        return Reply()

    with (
        running_receiver(hang_later) as (dead, dead_url),
        running_receiver() as (alive, url),
        sending(settings, dead_url, url),
    ):
        try:
            for number in range(3):
                register(engine, f"{dead_url}/{number}")
            inspect()
            eventually(lambda: delivery_states(engine), {"delivered"})
            slow.set()
            inspect(20)
            dead.wait(3 + 8)
            register(engine, url)
            inspect()
            alive.wait()
        finally:
            over.set()


def test_a_free_slot_goes_to_the_next_endpoint(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_queue, "MAX_CALLS", 1)
    with running_receiver() as (receiver, url):
        register(engine, f"{url}/busy")
        other = register(engine, f"{url}/other", events=[])
        inspect(50)
        with engine.begin() as connection:
            deliveries.send_test(connection, other)
        with sending(settings, url):
            paths = [request.path for request in receiver.wait(51)]
    assert paths.index("/hook/other") <= 2 * endpoint_queue.HELD_PER_SLOW_QUEUE


def test_a_failing_endpoint_gets_one_request_at_a_time(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    hang = HangingReply()
    with (
        running_receiver(hang) as (dead, dead_url),
        running_receiver() as (alive, url),
        sending(settings, dead_url, url),
    ):
        register(engine, dead_url, failing_since=dt.datetime.now(dt.UTC))
        register(engine, url)
        with hang:
            inspect(100)
            dead.wait(1)
            alive.wait(100)
            assert len(dead.requests) == 1


def test_several_senders_share_the_work(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    """Nothing is sent twice, no group is torn, and neither waits for the other."""
    with running_receiver() as (alone, alone_url), running_receiver() as (grouped, grouped_url):
        register(engine, alone_url)
        register(engine, grouped_url, max_group_size=7, max_group_delay_ms=100)
        with sending(settings, alone_url, grouped_url), sending(settings, alone_url, grouped_url):
            inspected = [inspection_id for _ in range(20) for inspection_id in inspect(15)]
            alone.wait(300)
            eventually(lambda: delivery_states(engine), {"delivered"})
    assert sorted(request.verified()["data"]["id"] for request in alone.requests) == sorted(map(str, inspected))
    delivered_ids = [event["data"]["id"] for request in grouped.requests for event in request.verified()["data"]]
    assert sorted(delivered_ids) == sorted(map(str, inspected))
    assert len({request.id for request in grouped.requests}) == len(grouped.requests)
    assert all(len(request.verified()["data"]) <= 7 for request in grouped.requests)


def test_failing_callbacks_do_not_change_their_endpoint(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint is not marked as failing, and its events are sent with the same concurrency."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    over, hanging = threading.Event(), threading.Event()

    def answer(_: int, request: Any) -> Reply:
        if request.path.endswith("/own"):
            return Reply(500)
        if hanging.is_set():
            over.wait(DEADLINE_SECONDS)
        return Reply()

    with running_receiver(answer) as (receiver, url):
        endpoint_id = register(engine, url)
        called = Callback(endpoint_id, f"{url}/own")
        try:
            with sending(settings, url, webhook_retry_seconds=(0.05,)):
                [inspected] = inspect()
                eventually(lambda: delivery_states(engine), {"delivered"})
                with engine.begin() as connection:
                    failed = Event(EventType.INSPECTION_FAILED, str(inspected), [], called)
                    events.emit(connection, [failed] * 10)
                eventually(
                    lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)[:10]}, {"exhausted"}
                )
                with engine.begin() as connection:
                    assert endpoints.get(connection, endpoint_id).failing_since is None
                hanging.set()
                inspect(20)
                receiver.wait(20 + 1 + endpoint_queue.CALLS_PER_QUEUE)
                over.set()
        finally:
            over.set()
