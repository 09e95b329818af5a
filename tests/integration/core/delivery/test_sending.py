"""Claims of deliveries: limits of messages and events."""

import datetime as dt
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.delivery import sending
from core.delivery.deliveries import Outcome
from core.delivery.sending import Message, ReceiverAnswer, Result
from core.feed import events
from core.feed.events import Event, EventType
from tests.fixtures.webhook_sending import register


def test_a_claim_is_limited_by_its_number_of_events(engine: Engine) -> None:
    """The remaining messages are claimed next; the first message of each endpoint comes before any second one."""
    size = sending.EVENTS_AT_ONCE // 5
    ids = [register(engine, f"http://127.0.0.1/{number}", max_group_size=size) for number in range(8)]
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(2 * size)])
    claimed: list[list[Message]] = []
    while not claimed or claimed[-1]:
        with engine.begin() as connection:
            claimed.append(sending.claim(connection, {}, capacity=64))
    assert [sum(len(message.claims) for message in each) for each in claimed] == [1000, 1000, 1000, 200, 0]
    assert len({message.endpoint_id for message in claimed[0]}) == 5
    assert {message.endpoint_id for each in claimed for message in each} == set(ids)


def test_a_message_is_claimed_regardless_of_its_number_of_events(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "EVENTS_AT_ONCE", 10)
    register(engine, "http://127.0.0.1/", max_group_size=25)
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(25)])
        [message] = sending.claim(connection, {}, capacity=64)
    assert len(message.claims) == 25


def emit(engine: Engine, number: int = 1) -> None:
    with engine.begin() as connection:
        for n in range(number):
            events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), [])])


def claim(engine: Engine, **arguments: Any) -> list[Message]:
    with engine.begin() as connection:
        return sending.claim(connection, {}, capacity=64, **arguments)


def put_back_clock(engine: Engine) -> None:
    """Make the deliveries look as if the clock had been an hour ahead when they were written."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                UPDATE deliveries SET next_try_at = next_try_at + interval '1 hour',
                    scheduled_at = scheduled_at + interval '1 hour'
            """)
        )


def fail(engine: Engine, messages: list[Message], *, retry_after: float = 0.0) -> None:
    answer = ReceiverAnswer(Outcome.REFUSED_STATUS, dt.datetime.now(dt.UTC), 1.0, 503, retry_after=retry_after)
    with engine.begin() as connection:
        results = [Result(message, answer) for message in messages]
        sending.record_results(connection, results, schedule=(3600.0, 3600.0), disable_after_days=5)


def test_an_event_of_a_fast_clock_is_due_at_once(engine: Engine) -> None:
    register(engine, "http://127.0.0.1/")
    emit(engine)
    put_back_clock(engine)
    assert len(claim(engine)) == 1
    assert claim(engine) == []


def test_a_pause_of_a_fast_clock_is_over_but_others_last(engine: Engine) -> None:
    register(engine, "http://127.0.0.1/")
    emit(engine)
    fail(engine, claim(engine), retry_after=20 * 3600)  # longer than any pause of the schedule
    assert claim(engine) == []
    put_back_clock(engine)
    assert len(claim(engine)) == 1


def test_a_claim_of_a_fast_clock_lasts_one_more_lease(engine: Engine) -> None:
    """The sender that holds it may still record a result, so the message is not sent twice."""
    register(engine, "http://127.0.0.1/")
    emit(engine)
    [held] = claim(engine)
    put_back_clock(engine)
    assert claim(engine) == []
    with engine.begin() as connection:
        due = sending.next_due(connection)
    assert due is not None
    assert 50 < due <= sending.LEASE_SECONDS
    fail(engine, [held])
    with engine.begin() as connection:
        assert connection.execute(text("SELECT tries FROM deliveries")).scalar_one() == 1


def test_events_of_a_fast_clock_stay_with_a_disabled_endpoint(engine: Engine) -> None:
    endpoint_id = register(engine, "http://127.0.0.1/")
    emit(engine)
    put_back_clock(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_endpoints SET state = 'disabled'"))
    assert claim(engine) == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_endpoints SET state = 'enabled'"))
    assert [message.endpoint_id for message in claim(engine)] == [endpoint_id]
