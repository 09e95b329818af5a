"""The publisher's thread outlives every error."""

import time
from uuid import uuid4

import pytest
import redis
from sqlalchemy import Engine

from api.publisher import Publisher
from core.queue.broker import IO_QUEUE, Task
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.settings import Settings


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
