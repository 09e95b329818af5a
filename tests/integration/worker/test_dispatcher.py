"""A round of the dispatcher runs every check that may find something, whichever fails, and counts inspections."""

import json
from collections.abc import Callable
from uuid import UUID

import pytest
import redis
from sqlalchemy import Engine, text

from core.models import recipes
from core.queue.broker import IO_QUEUE, LIVE_QUEUE, TRAINING_QUEUE, Task
from core.rescoring import schedules
from core.settings import Settings
from core.statistics import counting
from core.training_runs import claims, runs
from core.training_runs.requests import InspectionSource, TrainingRequest
from tests.fixtures.queued_work import submit
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


def test_a_system_without_work_writes_nothing_and_sees_new_work_at_once(
    engine: Engine, settings: Settings, inspect: Callable[..., list[UUID]]
) -> None:
    def place_of_share() -> str:  # its row is written in each round that looks for work
        with engine.begin() as connection:
            return str(connection.execute(text("SELECT ctid FROM bulk_share")).scalar_one())

    inspect(3)
    dispatcher = Dispatcher(settings)
    try:
        for _ in range(3):
            dispatcher.round()
        before = place_of_share()
        dispatcher.round()
        assert place_of_share() == before
        inspect(1)  # what ended between two rounds is counted, too
        dispatcher.round()
        assert place_of_share() != before
        with engine.begin() as connection:
            assert counting.read_state(connection).position == 4
            [unpublished] = submit(connection, 1)
            connection.execute(text("UPDATE work SET published_at = NULL, created_at = now() - interval '2 s'"))
        dispatcher.round()
    finally:
        dispatcher.close()
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        [message] = client.lrange(LIVE_QUEUE, 0, -1)
    assert str(unpublished) in json.loads(message)["headers"]["argsrepr"]


def test_a_training_that_waits_is_published_until_a_worker_claims_it(engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        run = runs.create(connection, "ring", TrainingRequest(inspections=InspectionSource()), actor="test")
    dispatcher = Dispatcher(settings)
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:

        def messages() -> int:
            dispatcher.round()
            number: int = client.llen(TRAINING_QUEUE)
            client.delete(TRAINING_QUEUE)
            return number

        try:
            assert messages() == 0
            with engine.begin() as connection:
                runs.start(connection, "ring", run.id, actor="test")
            assert [messages(), messages()] == [1, 1]
            with engine.begin() as connection:
                assert claims.claim(connection, worker="test", lease_seconds=60) is not None
            assert messages() == 0
            with engine.begin() as connection:
                connection.execute(text("UPDATE training_runs SET lease_until = now()"))
            assert messages() == 1
        finally:
            dispatcher.close()
