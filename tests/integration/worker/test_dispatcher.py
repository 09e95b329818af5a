"""A round of the dispatcher runs every check, whichever of them fails, and counts final inspections."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine, text

from core.queue.broker import IO_QUEUE, Task
from core.rescoring import schedules
from core.settings import Settings
from core.statistics import counting
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


def test_final_inspections_are_counted(engine: Engine, settings: Settings, inspect: Callable[..., list[UUID]]) -> None:
    inspect(3)
    dispatcher = Dispatcher(settings)
    try:
        dispatcher.round()
        inspect(2)
        dispatcher.round()
    finally:
        dispatcher.close()
    with engine.begin() as connection:
        assert counting.read_state(connection) == counting.State(5, counting.ALWAYS)
        assert connection.execute(text("SELECT sum(number) FROM inspection_counts")).scalar_one() == 5
