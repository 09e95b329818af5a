"""One check of the dispatcher that fails does not keep the others from running."""

import json

import pytest
import redis
from sqlalchemy import Engine

from core.queue.broker import IO_QUEUE, Task
from core.rescoring import schedules
from core.settings import Settings
from worker.dispatcher import Dispatcher


def test_a_failing_check_does_not_stop_the_others(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("unforeseen")

    monkeypatch.setattr(schedules, "start_due", fail)
    dispatcher = Dispatcher(settings)
    try:
        dispatcher.round()
    finally:
        dispatcher.close()
    assert "a check failed" in caplog.text
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        [message] = client.lrange(IO_QUEUE, 0, -1)
    assert json.loads(message)["headers"]["task"] == Task.HOUSEKEEPING
