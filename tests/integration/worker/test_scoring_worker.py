"""The scoring worker as a process: it ends if its device fails, and logs one line for each fault."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from redis.exceptions import RedisError
from sqlalchemy import Engine

from core.queue.broker import LIVE_QUEUE, Task, celery_settings, score_arguments
from core.settings import Settings
from tests.fixtures.scoring_queue import Queue
from worker import scoring
from worker.pipeline.faults import WorkerUnfit

WORKER = """
from core.vision.detectors.device import Device
from worker import scoring

def fail(*_):
    raise RuntimeError("CUDA error: unspecified launch failure\\nCompile with TORCH_USE_CUDA_DSA")

Device.score = fail
options = ["--queues", "sync,live,bulk", "--pool", "threads", "--concurrency", "2", "--loglevel", "WARNING"]
scoring.app.worker_main(["--quiet", "worker", *options])
"""


def test_a_worker_whose_device_fails_ends_with_one_log_line(
    settings: Settings, engine: Engine, bundle: Path, tmp_path: Path
) -> None:
    queue = Queue(settings, engine, bundle)
    ids = queue.upload(3)
    ready_file = tmp_path / "ready"
    environment = {
        "LINEWATCH_DATABASE_URL": settings.database_url.get_secret_value(),
        "LINEWATCH_REDIS_URL": settings.redis_url.get_secret_value(),
        "LINEWATCH_STORE_URL": settings.store_url,
        "LINEWATCH_READY_FILE": str(ready_file),
        "LINEWATCH_DEVICE": "cpu",
    }
    with Celery("test", set_as_current=False) as celery:
        celery.conf.update(celery_settings(settings))
        for inspection_id in ids:
            arguments = score_arguments(queue.recipe_id, "live", [inspection_id])
            celery.send_task(Task.SCORE, args=list(arguments), queue=LIVE_QUEUE, ignore_result=True, retry=False)
    process = subprocess.run(
        [sys.executable, "-c", WORKER],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 1
    lines = [line for line in process.stderr.splitlines() if "this worker ends" in line]
    [line] = lines
    assert line.startswith("CRITICAL worker.scoring: the device cannot score a blank image: RuntimeError: CUDA error")
    assert line.endswith("unspecified launch failure; this worker ends")
    assert "Traceback" not in process.stderr
    assert not ready_file.exists()
    assert {(row.state, row.rescues) for row in queue.work().values()} == {("queued", 0)}
    queue.close()


class _Process:
    """In place of the objects of the process."""

    def __init__(self) -> None:
        self.ready: list[bool] = []
        self.readiness = SimpleNamespace(set=self.ready.append)
        self.stopping = SimpleNamespace(is_set=lambda: bool(self.stops), set=lambda: self.stops.append(True))
        self.stops: list[bool] = []


@contextmanager
def in_place_of_the_process(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> Iterator[_Process]:
    process = _Process()
    vars(process).update(parts)
    with monkeypatch.context() as patched:
        patched.setattr(scoring, "worker", SimpleNamespace(process=process))
        yield process


@pytest.mark.parametrize("error", [RedisError("Redis is loading"), OSError("no route")])
def test_a_slice_that_cannot_be_published_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(scoring.app, "send_task", fail)
    with in_place_of_the_process(monkeypatch, rescorer=SimpleNamespace(rescore=lambda _: True)):
        scoring.rescore(0)
    assert [(record.levelno, str(error) in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


def test_an_unavailable_store_is_one_log_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise OSError("Input/output error")

    with in_place_of_the_process(monkeypatch, rescorer=SimpleNamespace(rescore=fail)):
        scoring.rescore(0)
    [record] = caplog.records
    assert "Input/output error" in record.getMessage()


def test_a_worker_ends_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ends: list[bool] = []
    monkeypatch.setattr(scoring, "end_process", lambda: ends.append(True))
    worker = scoring._Worker()
    process: Any = _Process()
    vars(worker)["process"] = process
    for _ in range(2):
        with worker.ended_if_unfit():
            raise WorkerUnfit("the device does not work")
    assert ends == [True]
    assert process.ready == [False]
    assert caplog.text.count("this worker ends") == 1
    worker.set_ready()
    assert process.ready == [False]
