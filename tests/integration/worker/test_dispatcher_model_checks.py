"""The dispatcher requests checks of model versions behind live work, and of those that waited in turn with it."""

import json
from collections.abc import Iterator

import pytest
import redis
from sqlalchemy import Engine, text

from core.models import model_versions, recipes
from core.queue.broker import BULK_QUEUE, LIVE_QUEUE, LIVE_QUEUES, Task
from core.settings import Settings
from tests.fixtures.queued_work import MANIFEST
from worker.dispatcher import OVERDUE_CHECK_SECONDS, Dispatcher


@pytest.fixture
def queues(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(settings)
    yield dispatcher
    dispatcher.close()


def upload(engine: Engine, *, seconds_ago: float) -> int:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        version, _ = model_versions.register(connection, "ring", sha256=b"1" * 32, manifest=MANIFEST, actor="test")
        connection.execute(
            text("UPDATE model_versions SET created_at = now() - make_interval(secs => :seconds)"),
            {"seconds": seconds_ago},
        )
    return version.id


def requested_checks(queues: redis.Redis, queue: str) -> int:
    messages = [json.loads(message) for message in queues.lrange(queue, 0, -1)]
    return sum(message["headers"]["task"] == Task.CHECK_MODEL for message in messages)


def test_a_check_is_requested_behind_live_work(engine: Engine, dispatcher: Dispatcher, queues: redis.Redis) -> None:
    upload(engine, seconds_ago=10)
    dispatcher.round()
    assert requested_checks(queues, BULK_QUEUE) == 1
    assert [requested_checks(queues, queue) for queue in LIVE_QUEUES] == [0, 0]


def test_a_version_waits_for_a_check_even_on_a_busy_line_only_for_a_while(
    engine: Engine, dispatcher: Dispatcher, queues: redis.Redis
) -> None:
    upload(engine, seconds_ago=OVERDUE_CHECK_SECONDS + 1)
    queues.rpush(BULK_QUEUE, json.dumps({"headers": {"task": Task.RESCORE}}))  # nobody consumes this queue
    for _ in range(3):
        dispatcher.round()
    assert requested_checks(queues, BULK_QUEUE) == 0
    assert requested_checks(queues, LIVE_QUEUE) == 1


def test_no_check_is_requested_while_one_is_in_progress(
    engine: Engine, dispatcher: Dispatcher, queues: redis.Redis
) -> None:
    version_id = upload(engine, seconds_ago=OVERDUE_CHECK_SECONDS + 1)
    with engine.begin() as connection:
        assert model_versions.begin_check(connection, version_id)
    dispatcher.round()
    assert [requested_checks(queues, queue) for queue in (*LIVE_QUEUES, BULK_QUEUE)] == [0, 0, 0]
