"""The publisher's thread outlives every error."""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
import redis
from celery import Celery
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.publisher import Publisher
from core.queue import publishing
from core.queue.broker import IO_QUEUE, LIVE_QUEUE, Task
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.settings import Settings
from tests.fixtures.queued_work import recipe_id as recipe_id
from tests.fixtures.queued_work import submit


def test_messages_are_published_after_an_unexpected_error(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(Notifier, "finished", fail)
    publisher = Publisher(settings, engine)
    publisher.start()
    publisher.notify(Finished([uuid4()], []))
    deadline = time.monotonic() + 20
    while "could not publish" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    publisher.call(Task.HOUSEKEEPING, queue=IO_QUEUE)
    publisher.stop()
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        assert client.llen(IO_QUEUE) == 1


def test_inspections_whose_message_cannot_be_sent_are_left_to_the_dispatcher(
    engine: Engine, settings: Settings, recipe_id: int
) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 3)
        connection.execute(text("UPDATE work SET created_at = now() - interval '1 minute'"))
        assert publishing.take_unpublished(connection, at_most=10) == []
    publisher = Publisher(settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1")}), engine)
    publisher.start()
    for inspection_id in ids:
        publisher.queued(recipe_id, "live", inspection_id)
    found: set[UUID] = set()
    deadline = time.monotonic() + 30  # the client of Redis tries again for some seconds
    while found != set(ids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        with engine.begin() as connection:
            found |= {item.id for item in publishing.take_unpublished(connection, at_most=10)}
    publisher.stop()


def test_after_a_failure_no_other_message_is_tried(
    engine: Engine, settings: Settings, recipe_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try may take as long as a timeout, while more and more items wait."""
    tried = []

    def fail(_: Celery, task: str, **__: object) -> None:
        tried.append(task)
        raise ConnectionError("no answer")

    monkeypatch.setattr(Celery, "send_task", fail)
    with engine.begin() as connection:
        ids = submit(connection, 3)
        connection.execute(text("UPDATE work SET created_at = now() - interval '1 minute'"))
    publisher = Publisher(settings, engine)
    publisher.call(Task.HOUSEKEEPING, queue=IO_QUEUE)
    for number, inspection_id in enumerate(ids):
        publisher.queued(recipe_id + number, "live", inspection_id)  # a message for each recipe
    publisher.start()
    publisher.stop()
    with engine.begin() as connection:
        assert {item.id for item in publishing.take_unpublished(connection, at_most=10)} == set(ids)
    assert tried == [Task.SCORE]


def messages(client: redis.Redis) -> list[list[str]]:
    """Return the ids that each live message names, the oldest message first."""
    bodies = [json.loads(b64decode(json.loads(entry)["body"])) for entry in reversed(client.lrange(LIVE_QUEUE, 0, -1))]
    return [body[0][2] for body in bodies]


@pytest.fixture
def publisher(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A running publisher that holds inspections for a long time, and whose minibatch is 4."""
    monkeypatch.setattr("api.publisher.HOLD_SECONDS", 20.0)
    publisher = Publisher(settings.model_copy(update={"minibatch": 4}), engine)
    publisher.start()
    yield publisher
    publisher.stop()


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        yield client


def wait_for_messages(client: redis.Redis, number: int) -> list[list[str]]:
    deadline = time.monotonic() + 15
    while len(found := messages(client)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_an_idle_worker_gets_each_inspection_at_once(publisher: Publisher, client: redis.Redis) -> None:
    inspection_id = uuid4()
    publisher.queued(1, "live", inspection_id)
    assert wait_for_messages(client, 1) == [[str(inspection_id)]]


def test_while_workers_are_busy_messages_are_filled_up(publisher: Publisher, client: redis.Redis) -> None:
    ids = [uuid4() for _ in range(6)]
    publisher.queued(1, "live", ids[0])
    wait_for_messages(client, 1)  # nobody takes it, so workers count as busy
    for inspection_id in ids[1:5]:
        time.sleep(0.05)
        publisher.queued(1, "live", inspection_id)
    assert wait_for_messages(client, 2)[1:] == [[str(each) for each in ids[1:5]]]


def test_other_tasks_are_never_held(publisher: Publisher, client: redis.Redis) -> None:
    first, second = uuid4(), uuid4()
    publisher.queued(1, "live", first)
    wait_for_messages(client, 1)
    publisher.queued(1, "live", second)
    publisher.call(Task.HOUSEKEEPING, queue=IO_QUEUE)
    assert wait_for_messages(client, 2)[1:] == [[str(second)]]
    assert client.llen(IO_QUEUE) == 1
