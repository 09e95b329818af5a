"""`linewatch up` with real processes: one ready line, or one clear error line."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.later_migrations import later_release
from tests.fixtures.servers import free_port
from tests.fixtures.up_process import PATIENCE, ROOT, STAND_INS, UP, Up, environment, put, refusal, up, wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike the temporary folder of pytest."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def fake_services(folder: Path) -> Path:
    """A data directory with fake services."""
    data = folder / "data"
    data.mkdir(mode=0o755)
    for name, script in STAND_INS.items():
        put(data, name, script)
    return data


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - a loopback URL
        return int(answer.status)


# The real system


def test_up_starts_serves_stops_and_restarts(folder: Path) -> None:
    data = folder / "data"
    for _ in range(2):
        with up(data) as system:
            system.wait_until_ready()
            assert status_of(f"http://127.0.0.1:{system.port}/readyz") == 200
            names = {line.split()[2] for line in system.log.read_text().splitlines() if " | " in line}
            assert {"postgres", "valkey"} <= names
            assert ("running as root" in system.log.read_text()) == (os.geteuid() == 0)
            assert system.stop() < 30
            assert system.process.stdout is not None
            assert system.process.stdout.read() == "", "only one ready line is printed"
            assert "Traceback" not in system.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_a_killed_up_leaves_no_process_and_restarts(folder: Path) -> None:
    with up(folder / "data") as system:
        system.wait_until_ready()
        family = system.family()
        assert len(family) > 5
        system.process.kill()
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    with up(folder / "data") as system:
        system.wait_until_ready()
        system.stop(signal.SIGINT)


def test_each_killed_process_is_restarted(folder: Path) -> None:
    with up(folder / "data") as system:
        system.wait_until_ready()
        direct = psutil.Process(system.process.pid).children()
        assert len(direct) == 7, "postgres, valkey, api, scoring, io, training, dispatcher"
        for process in direct:
            process.kill()
        system.wait_for_log("ended (SIGKILL)", times=7)
        url = f"http://127.0.0.1:{system.port}/readyz"

        def is_back() -> bool:
            try:
                return status_of(url) == 200
            except OSError:
                return False

        wait_until(is_back)
        wait_until(lambda: len(psutil.Process(system.process.pid).children()) == 7)
        system.stop()


# Start and stop order, with fake services


def test_services_get_the_settings_that_they_need(fake_services: Path) -> None:
    put(fake_services, "migrations", "import os\nfor name in sorted(os.environ):\n    print(name, os.environ[name])")
    with up(fake_services, PGPORT="1", LINEWATCH_MINIBATCH="7") as system:
        system.wait_until_ready()
        lines = [line.split("| ", 1)[1] for line in system.log.read_text().splitlines() if " migrate " in line]
        system.stop()
    variables = dict(line.split(" ", 1) for line in lines if line.startswith(("LINEWATCH_", "PG")))
    assert variables["LINEWATCH_DATABASE_URL"].startswith("postgresql+psycopg://linewatch:")
    assert variables["LINEWATCH_REDIS_URL"].startswith("unix://:")  # with a password
    assert variables["LINEWATCH_STORE_URL"] == f"file://{fake_services}/store"
    assert variables["LINEWATCH_ARCHIVE_ROOTS"] == f"file://{fake_services}/archive"
    assert (fake_services / "archive").is_dir()
    assert (variables["LINEWATCH_HOST"], variables["LINEWATCH_PORT"]) == ("127.0.0.1", str(system.port))
    assert (variables["LINEWATCH_DEVICE"], variables["LINEWATCH_MINIBATCH"]) == ("cpu", "7")
    assert "PGPORT" not in variables


def test_configured_servers_replace_the_embedded_ones(fake_services: Path) -> None:
    put(fake_services, "migrations", "import os\nprint(*(os.environ[n] for n in os.environ if n.endswith('_URL')))")
    with up(
        fake_services,
        LINEWATCH_DATABASE_URL="postgresql+psycopg://me@elsewhere/parts",
        LINEWATCH_REDIS_URL="redis://elsewhere",
        LINEWATCH_STORE_URL="file:///elsewhere",
        LINEWATCH_ARCHIVE_ROOTS="/elsewhere",
    ) as system:
        system.wait_until_ready()
        output = system.log.read_text()
        assert {"postgresql+psycopg://me@elsewhere/parts", "redis://elsewhere", "file:///elsewhere"} <= set(
            output.split()
        )
        assert len(system.family()) == 5
        system.stop()
    assert not any((fake_services / name).exists() for name in ("postgres", "valkey", "store", "archive"))


def test_no_training_worker_is_started_unless_it_is_wanted(fake_services: Path) -> None:
    database, queue = "postgresql+psycopg://me@elsewhere/parts", "redis://elsewhere"
    for options, number in ((["--no-training"], 4), ([], 5)):
        with up(fake_services, *options, LINEWATCH_DATABASE_URL=database, LINEWATCH_REDIS_URL=queue) as system:
            system.wait_until_ready()
            assert len(system.family()) == number
            system.stop()


def test_threads_are_divided_unless_they_are_configured(fake_services: Path) -> None:
    with up(fake_services, OMP_NUM_THREADS="3") as system:
        system.wait_until_ready()
        system.wait_for_log("| threads 3\n")
        system.stop()


def test_each_process_has_its_own_port_for_metrics(fake_services: Path) -> None:
    script = "import os, sys, time\nprint('metrics', os.environ['LINEWATCH_METRICS_PORT'], flush=True)\n"
    put(fake_services, "celery", f"{script}open(os.environ['LINEWATCH_READY_FILE'], 'w')\ntime.sleep(600)")
    put(fake_services, "worker/dispatcher", f"{script}time.sleep(600)")
    for first, ports in (("9800", [9800, 9801, 9802, 9803]), ("0", [0, 0, 0, 0])):
        with up(fake_services, LINEWATCH_METRICS_PORT=first) as system:
            system.wait_until_ready()
            for name, port in zip(("dispatcher", "io", "training", "scoring-1"), ports, strict=True):
                system.wait_for_log(f" {name:<12} | metrics {port}\n")
            system.stop()


def test_the_log_can_be_json(fake_services: Path) -> None:
    put(fake_services, "migrations", """print('{"message": "migrated", "level": "info"}')""")
    with up(fake_services, LINEWATCH_LOG_FORMAT="json") as system:
        system.wait_until_ready()
        system.wait_for_log("threads")
        system.stop()
        lines = [json.loads(line) for line in system.log.read_text().splitlines()]
    assert {"postgres", "valkey", "migrate", "scoring-1"} <= {line["process"] for line in lines}
    assert {"process": "migrate", "message": "migrated", "level": "info"} in lines


def test_a_failed_migration_stops_up_with_its_reason(fake_services: Path) -> None:
    put(fake_services, "migrations", "raise SystemExit('the schema is newer than this version')")
    assert refusal(fake_services).endswith("migrate failed (exit status 1): the schema is newer than this version")


def change_database(data: Path, change: Callable[[Engine], object]) -> object:
    with EmbeddedServers(data, fsync=False) as servers:
        return change(create_engine(servers.database_url, poolclass=NullPool))


def execute(statement: str) -> Callable[[Engine], list[str]]:
    def change(engine: Engine) -> list[str]:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return list(result.scalars()) if result.returns_rows else []

    return change


def test_a_data_directory_of_an_older_release_is_migrated(fake_services: Path) -> None:
    shutil.rmtree(fake_services / "migrations")
    change_database(fake_services, lambda engine: migrate(engine, "0009"))
    change_database(fake_services, execute("INSERT INTO recipes (name) VALUES ('ring')"))
    with up(fake_services) as system:
        system.wait_until_ready()
        assert "The database was upgraded from schema 0009 to schema " in system.log.read_text()
        system.stop()
    assert change_database(fake_services, execute("SELECT name FROM recipes WHERE retention IS NULL")) == ["ring"]


def test_a_data_directory_of_the_next_release_is_used_as_it_is_and_a_later_one_refused(fake_services: Path) -> None:
    shutil.rmtree(fake_services / "migrations")
    release = version("linewatch")
    with later_release(fake_services.parent / "next", "CREATE TABLE later (id bigint)", oldest_release=release):
        change_database(fake_services, migrate)
    with up(fake_services) as system:
        system.wait_until_ready()
        assert f"Linewatch 90.0.0 has migrated the database. Linewatch {release} works with" in system.log.read_text()
        system.stop()
    assert change_database(fake_services, execute("SELECT version_num FROM alembic_version")) == ["later"]

    comment = '{"revision": "later", "migrated_by": "91.0.0", "oldest_release": "90.0.0"}'
    change_database(fake_services, execute(f"COMMENT ON TABLE alembic_version IS '{comment}'".replace(":", r"\:")))
    assert "migrate failed (exit status 1): the database cannot be migrated: Linewatch 91.0.0" in refusal(fake_services)


def test_a_service_that_never_starts_stops_up_with_its_reason(fake_services: Path) -> None:
    put(fake_services, "celery", "raise SystemExit('no CUDA device')")
    line = refusal(fake_services)
    assert "does not start" in line
    assert line.endswith("no CUDA device")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_stops_up(fake_services: Path, number: signal.Signals) -> None:
    put(fake_services, "migrations", "import time\nprint('waits for a lock', flush=True)\ntime.sleep(600)")
    with up(fake_services) as system:
        system.wait_for_log("waits for a lock")
        system.stop(number)
        assert system.process.stdout is not None
        assert system.process.stdout.read() == ""


def test_a_signal_right_at_the_start_stops_up(fake_services: Path) -> None:
    with up(fake_services) as system:
        system.wait_for_log("valkey")
        system.stop()


def test_a_second_up_on_the_same_data_is_a_one_line_error(fake_services: Path) -> None:
    with up(fake_services) as system:
        system.wait_until_ready()
        line = refusal(fake_services)
        assert f"in use by another linewatch (process {system.process.pid})" in line
        system.stop()


def test_a_port_in_use_is_a_one_line_error_and_nothing_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal(folder / "data", port=port)
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert not (folder / "data/postgres").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another account")
def test_an_unreachable_data_directory_is_a_one_line_error_and_changes_nothing(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    before = closed.stat()
    assert f"cannot enter {closed}" in refusal(closed / "data")
    assert closed.stat().st_mode == before.st_mode
    assert list(closed.iterdir()) == []


def test_a_file_instead_of_a_folder_is_a_one_line_error(folder: Path) -> None:
    (folder / "file").touch()
    assert "choose another --data" in refusal(folder / "file")
    assert "choose another --data" in refusal(folder / "file/data")


def test_an_address_of_another_machine_is_a_one_line_error(folder: Path) -> None:
    assert "cannot listen on 192.0.2.1" in refusal(folder / "data", host="192.0.2.1")


def test_auth_off_is_refused_beyond_loopback(folder: Path) -> None:
    line = refusal(folder / "data", host="0.0.0.0", code=2, LINEWATCH_AUTH="off")  # noqa: S104 - as tested
    assert "LINEWATCH_AUTH=off is not allowed" in line
    assert not (folder / "data").exists()


def test_an_invalid_setting_is_a_one_line_error(folder: Path) -> None:
    assert "LINEWATCH_MINIBATCH" in refusal(folder / "data", code=2, LINEWATCH_MINIBATCH="many")


@pytest.mark.skipif(os.geteuid() != 0, reason="for root; without root every test here is this one")
def test_an_ordinary_user_can_run_up(fake_services: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    interpreter = interpreter_for(nobody)
    for path in (fake_services.parent, fake_services, *fake_services.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    port, log = free_port(), fake_services.parent / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [interpreter, "-c", UP, str(fake_services), "127.0.0.1", str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment({"PYTHONPATH": import_path(), "HOME": str(fake_services.parent)}),
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
        ) as process,
    ):
        try:
            system = Up(process, log, port)
            system.wait_until_ready()
            assert {member.uids().real for member in system.family()} == {nobody.pw_uid}
            system.stop()
        finally:
            process.kill()


def import_path() -> str:
    return os.pathsep.join([str(ROOT), *(entry for entry in sys.path if "site-packages" in entry)])


def interpreter_for(user: pwd.struct_passwd) -> str:
    """Return an interpreter of this version that the user can run, with all installed packages; else skip the test.

    The interpreter of root may be below /root, which other users cannot enter.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            tried = subprocess.run(
                [candidate, "-c", "import psycopg, pydantic_settings, linewatch.server.up"],
                env=environment({"PYTHONPATH": import_path()}),
                capture_output=True,
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                cwd="/",
                check=False,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return candidate
    pytest.skip(f"no {version} that user {user.pw_name!r} can run")
