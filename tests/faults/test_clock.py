"""A clock that jumps an hour ahead, and back again: nothing is lost, and nothing waits for an hour."""

import time
from collections.abc import Iterator
from pathlib import Path

import libfaketime
import pytest

from linewatch.server.embedded import data, postgres, valkey
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.faults.injection import Target
from tests.fixtures.faults.recovery import Recovery, verify
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

LIBRARY = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"


@pytest.fixture
def clock(reachable_folder: Path) -> Path:
    """A file with the offset of the system's clock in seconds."""
    file = reachable_folder / "clock"
    set_clock(file, "+0")
    return file


def set_clock(file: Path, offset: str) -> None:
    """Set the clock. The file is replaced, since no process may read a part of it."""
    new = file.with_suffix(".new")
    new.write_text(offset)
    new.chmod(0o644)
    new.rename(file)


@pytest.fixture
def target(clock: Path, reachable_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """A system whose processes, PostgreSQL and Valkey among them, have a clock of their own."""
    faked = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    for module in (postgres, valkey):
        monkeypatch.setattr(module, "server_environment", lambda: data.server_environment() | faked)
    folder = reachable_folder / "clocked"
    folder.mkdir()
    with EmbeddedServers(folder / "servers") as servers:
        urls = {"LINEWATCH_DATABASE_URL": servers.database_url, "LINEWATCH_REDIS_URL": servers.redis_url}
        with System.running(folder, "--scoring-workers", "2", **faked, **urls) as system:
            yield Target.of(system)


def test_an_hour_ahead_and_back(target: Target, clock: Path, bundle: Path, recoveries: list[Recovery]) -> None:
    uploads = Uploads.of_a_new_recipe(target.system.url, bundle, seed=6)
    with uploads.running(30):
        for offset, name in (("+3600", "the clock goes an hour ahead"), ("+0", "the clock goes back an hour")):
            target.oracle.wait_until_final(uploads.wait_for(len(uploads.ids) + 60), 30)
            before = len(uploads.accepted)
            set_clock(clock, offset)
            jumped = time.monotonic()
            for worker in target.system.children("worker.scoring"):
                worker.kill()  # its leases end in an hour
            with target.redis() as queue:
                queue.flushall()
            uploads.send_image(png(9))
            target.oracle.require_final(uploads.ids, 90)
            recoveries.append(
                Recovery(f"{name}, and workers die", time.monotonic() - jumped, len(uploads.ids) - before)
            )
    verify(target, uploads)
