"""A queue of thousands that is lost, minibatches that outlast their leases many times, and two dispatchers."""

import subprocess
import sys
import threading
import time

import httpx
import psycopg

from tests.fixtures.faults.injection import Target, suspended
from tests.fixtures.faults.recovery import Recovery, verify
from tests.fixtures.faults.steady_uploads import Uploads

SLOW_SECONDS = 40
RUNS, RESTS = 0.05, 0.45  # seconds of each half second


def test_a_lost_queue_of_thousands(target: Target, uploads: Uploads, recoveries: list[Recovery]) -> None:
    with suspended(target.system.children("worker.scoring")):
        for _ in range(4):
            uploads.send_batch(1000)
        with target.redis() as queue:
            queue.flushall()
    begun = time.monotonic()
    last = uploads.ids[-1]
    target.oracle.wait_until_final(uploads.ids[:32], 60)
    recoveries.append(Recovery("FLUSHALL with 4,000 queued, until scoring goes on", time.monotonic() - begun, 4000))
    target.oracle.require_final([last], 240)
    verify(target, uploads)


def test_minibatches_longer_than_many_leases(target: Target, uploads: Uploads) -> None:
    """Both workers get a tenth of their time, and renew their leases."""
    stop = threading.Event()

    def slow_down() -> None:
        while not stop.is_set():
            with suspended(target.system.children("worker.scoring")):
                stop.wait(RESTS)
            stop.wait(RUNS)

    for _ in range(4):
        uploads.send_batch(100)
    slowing = threading.Thread(target=slow_down)
    slowing.start()
    try:
        time.sleep(SLOW_SECONDS)
    finally:
        stop.set()
        slowing.join()
    verify(target, uploads)


def test_two_dispatchers(target: Target, uploads: Uploads) -> None:
    second = subprocess.Popen([sys.executable, "-m", "worker.dispatcher"], env=target.environment)
    try:
        with uploads.running(40):
            target.oracle.wait_until_final(uploads.wait_for(100), 30)
            with target.redis() as queue:
                queue.flushall()
            target.system.child("worker.dispatcher").kill()
            time.sleep(5)
        verify(target, uploads)
        assert second.poll() is None
    finally:
        second.terminate()
        assert second.wait(30) == 0


MIGRATE = """
from core.database import create_unbounded
from core.settings import settings
from migrations.__main__ import migrate
migrate(create_unbounded(settings(), name="migrate"), "0005")
"""


def test_a_migration_behind_a_long_reader(target: Target, uploads: Uploads) -> None:
    """An index of the inspections is built anew: the reader holds it up, but nobody else."""
    with target.connect_postgres() as connection:
        [newest] = connection.execute("SELECT version_num FROM alembic_version").fetchone() or [None]
        connection.execute("DROP INDEX ix_inspections_not_completed")
        connection.execute("UPDATE alembic_version SET version_num = '0004'")
    with target.connect_postgres() as reader, uploads.running(20):
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # it holds a snapshot, as a report does
        uploads.wait_for(20)
        with reader.transaction():
            reader.execute("SELECT count(*) FROM inspections")
            migration = subprocess.Popen([sys.executable, "-c", MIGRATE], env=target.environment)
            accepted = len(uploads.accepted)
            time.sleep(6)
            target.oracle.require_final(uploads.wait_for(accepted + 60), 10)  # the line goes on
            assert migration.poll() is None, "it did not wait for the reader"
        assert migration.wait(60) == 0
        reader.execute("UPDATE alembic_version SET version_num = %s", [newest])
    verify(target, uploads)
    assert httpx.get(f"{target.system.url}/readyz").status_code == 200
