"""The publisher's thread outlives every error."""

import time
from uuid import UUID, uuid4

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, text

from api.publisher import Publisher
from core.queue import publishing
from core.queue.broker import IO_QUEUE, Task
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
