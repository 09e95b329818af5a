"""Webhooks to the callback URL of an inspection."""

from sqlalchemy import Engine, text

from core.feed.events import EventType
from core.settings import Settings
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import Reply, running_receiver
from tests.fixtures.webhook_sending import Inspect, deliveries_of, endpoint_state, register, sending


def make_callbacks(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET callback_url = :url WHERE state = 'pending'"), {"url": url})


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
