"""A heartbeat shows a process while it lives, and never disturbs it."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.settings import Settings
from core.system import workers
from core.system.documents import Worker
from tests.fixtures.waiting import eventually
from worker.dispatcher import Dispatcher
from worker.heartbeat import Activity, Heartbeat, process_name


@contextmanager
def beating(settings: Settings, **options: Any) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat(settings, "scoring", every=0.05, **options)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


def listed(engine: Engine) -> list[Worker]:
    with engine.begin() as connection:
        return workers.list_all(connection)


def states(engine: Engine) -> list[str]:
    return [worker.state for worker in listed(engine)]


def test_a_process_is_shown_from_its_start_to_its_end(engine: Engine, settings: Settings) -> None:
    activity = Activity(device="cpu", minibatch_fill=0.5, images_per_second=12.5)
    with beating(settings, activity=lambda: activity) as heartbeat:
        eventually(lambda: states(engine), ["starting"])
        heartbeat.set_ready()
        eventually(lambda: states(engine), ["ready"])
        [worker] = listed(engine)
        assert worker.name == process_name()
        assert worker.name.endswith(f"/{os.getpid()}")
        assert (worker.kind, worker.device, worker.minibatch_fill, worker.images_per_second) == (
            "scoring", "cpu", 0.5, 12.5,
        )  # fmt: skip
        activity = Activity(is_ready=False)
        eventually(lambda: states(engine), ["unready"])
        first = listed(engine)[0]
        eventually(lambda: listed(engine)[0].heartbeat_at > first.heartbeat_at, True)
        assert abs((listed(engine)[0].started_at - first.started_at).total_seconds()) < 1
        heartbeat.set_stopping()
        eventually(lambda: states(engine), ["stopping"])
    assert listed(engine) == []


def test_a_killed_process_is_lost_and_later_removed(engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        for name in ("killed", "gone", "ahead"):
            workers.beat(connection, workers.Heartbeat(name, "io", "ready", "1", 0.0))
        for name, seconds in (("killed", 31), ("gone", 301), ("ahead", -3600)):
            connection.execute(
                text("UPDATE workers SET heartbeat_at = now() - :seconds * interval '1 s' WHERE name = :name"),
                {"name": name, "seconds": seconds},
            )
    dispatcher = Dispatcher(settings)
    try:
        dispatcher.round()
    finally:
        dispatcher.close()
    [worker] = listed(engine)
    assert (worker.name, worker.state) == ("killed", "lost")
    assert worker.heartbeat_age_s >= 31


def test_without_a_database_one_line_is_logged_and_the_process_ends_in_order(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    unreachable = SecretStr("postgresql+psycopg://linewatch@127.0.0.1:9/linewatch")
    with beating(settings.model_copy(update={"database_url": unreachable})):
        deadline = time.monotonic() + 30
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)  # some more heartbeats
    [record] = caplog.records
    assert "heartbeats cannot be written for now" in record.getMessage()
    assert record.levelno == logging.WARNING


def test_heartbeats_go_on_once_the_database_is_back(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE workers RENAME TO away"))  # as before its migration
    with beating(settings) as heartbeat:
        heartbeat.set_ready()
        eventually(lambda: len(caplog.records), 1)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO workers"))
        eventually(lambda: states(engine), ["ready"])


def test_a_locked_row_delays_only_the_heartbeat(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with beating(settings) as heartbeat:
        heartbeat.set_ready()
        eventually(lambda: states(engine), ["ready"])
        with engine.begin() as connection:
            connection.execute(text("SELECT FROM workers FOR UPDATE"))
            eventually(lambda: len(caplog.records), 1)  # after its own short timeout
        eventually(lambda: listed(engine)[0].heartbeat_age_s < 1, True)
