"""Webhooks with several events in one message."""

import json
from typing import Any

from sqlalchemy import Engine, text

from core.delivery import deliveries
from core.settings import Settings
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import Reply, running_receiver
from tests.fixtures.webhook_sending import Inspect, deliveries_of, only_delivery, register, sending


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
