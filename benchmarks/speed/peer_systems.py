"""The peers as running contenders."""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
from pydantic import TypeAdapter

from benchmarks.speed.contender import Contender, VerdictTimes, environment
from benchmarks.speed.cores import CORES
from benchmarks.speed.load import Sent, Target
from benchmarks.speed.peers.scoring import BUNDLE_VARIABLE
from benchmarks.speed.peers.tuning import Tuning
from benchmarks.speed.scratch import new_folder
from core.queue.broker import broker_url
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.servers import free_port

FOLDER: Final = Path(".bench").absolute()
"""The virtual environment of the peers; `make bench` creates it."""
_PYTHON: Final = FOLDER / "bin/python"
_READY_SECONDS: Final = 120.0
_END_SECONDS: Final = 10.0
_LIMIT_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.02


@contextmanager
def demo_style(bundle: Path) -> Iterator[Contender]:
    """One process of uvicorn that scores in the handler."""
    port = free_port()
    with _process(_uvicorn("demo", port), {BUNDLE_VARIABLE: str(bundle)}, port) as pid:
        settings = "one process of uvicorn with its default thread pool and torch's default threads"
        yield Contender(Target(port, "/predict", form_field="file"), {pid: "server"}, settings=settings)


@contextmanager
def celery_per_image(bundle: Path) -> Iterator[Contender]:
    """An HTTP server that saves each image and sends a task for it, and a prefork worker."""
    folder, port = new_folder(), free_port()
    (folder / "images").mkdir()
    worker = ["-m", "celery", "--app", "benchmarks.speed.peers.celery_app", "worker"]
    worker += ["--concurrency", str(CORES), "--loglevel", "warning"]
    with EmbeddedServers(folder / "servers") as servers:
        variables = {
            BUNDLE_VARIABLE: str(bundle),
            "BENCH_IMAGES": str(folder / "images"),
            "BENCH_BROKER": broker_url(servers.redis_url),
            "BENCH_BACKEND": broker_url(servers.redis_url),
        }
        with (
            _process(worker, variables, None) as worker_pid,
            _process(_uvicorn("celery_front", port), variables, port) as front_pid,
        ):
            yield Contender(
                Target(port, "/inspections", form_field="file"),
                {front_pid: "server", worker_pid: "worker", servers.valkey.pid: "Valkey"},
                partial(_stored_results, servers.redis_url),
                f"{CORES} prefork processes with one torch thread each, otherwise Celery's defaults",
            )


@contextmanager
def litserve(bundle: Path, tuning: Tuning) -> Iterator[Contender]:
    """LitServe with a worker for each core."""
    port = free_port()
    command = ["-m", "benchmarks.speed.peers.litserve_server", str(port), str(CORES)]
    with _process(command, {BUNDLE_VARIABLE: str(bundle)}, port, TypeAdapter(Tuning).dump_json(tuning)) as pid:
        yield Contender(
            Target(port, "/predict", form_field="request"), {pid: "server"}, settings=f"{CORES} workers, {tuning}"
        )


@contextmanager
def _stored_results(redis_url: str) -> Iterator[VerdictTimes]:
    """Read from Celery's result backend when each task was done. Asking for the results would cost it time."""
    with redis.from_url(redis_url) as client:
        yield partial(_times_of_results, client)


def _times_of_results(client: "redis.Redis", sent: Sent) -> list[float]:
    keys = [f"celery-task-meta-{json.loads(answer)['id']}" for answer in sent.answers]
    deadline = time.monotonic() + _LIMIT_SECONDS
    while client.exists(*keys) < len(keys):
        if time.monotonic() > deadline:
            raise TimeoutError("results of tasks are missing")
        time.sleep(_POLL_SECONDS)
    return [_done_at(json.loads(result or "{}")) for result in client.mget(keys)]


def _done_at(result: Mapping[str, Any]) -> float:
    if result.get("status") != "SUCCESS":
        raise RuntimeError(f"a task failed: {result}")
    return dt.datetime.fromisoformat(result["date_done"]).timestamp()


def _uvicorn(module: str, port: int) -> list[str]:
    application = f"benchmarks.speed.peers.{module}:app"
    return ["-m", "uvicorn", application, "--port", str(port), "--log-level", "warning"]


@contextmanager
def _process(
    arguments: Sequence[str], variables: Mapping[str, str], port: int | None, stdin: bytes = b""
) -> Iterator[int]:
    """Run a peer's process and its children. Yields its id once it listens on the port."""
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as inputs:
        inputs.write(stdin)
        inputs.seek(0)
        process = subprocess.Popen(
            [_PYTHON, *arguments],
            stdin=inputs,
            stdout=log,
            stderr=log,
            env=environment(**variables),
            start_new_session=True,
        )
        try:
            if port is not None:
                _wait_until_listening(process, port)
            yield process.pid
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            with suppress(ProcessLookupError):  # no child is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("a peer did not start") from None
            time.sleep(0.1)
