"""`linewatch up` as a person meets it: real processes, one ready line, one clear line when it cannot be."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
PATIENCE = 120.0  # seconds after which a test gives up; nothing is expected to take that long

UP = """
import sys
from pathlib import Path
from linewatch.server.up import run
sys.exit(run(host=sys.argv[2], port=int(sys.argv[3]), data=Path(sys.argv[1]), scoring_workers=1, device="cpu"))
"""

# Stand-ins lie in the data directory, which is the services' working folder and so comes before what is installed.
STAND_INS = {
    "migrations": "print('migrated')",
    "api": """
import os, http.server
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer((os.environ["LINEWATCH_HOST"], int(os.environ["LINEWATCH_PORT"])), Ready).serve_forever()
""",
    "celery": """
import os, pathlib, sys, time
print("threads", os.environ["OMP_NUM_THREADS"] if "sync,live,bulk" in sys.argv else "-")
pathlib.Path(os.environ["LINEWATCH_READY_FILE"]).touch()
time.sleep(600)
""",
    "worker/dispatcher": "import time; time.sleep(600)",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def stand_ins(folder: Path) -> Path:
    """A data directory whose services are the stand-ins."""
    data = folder / "data"
    data.mkdir(mode=0o755)
    for name, script in STAND_INS.items():
        put(data, name, script)
    return data


def put(data: Path, name: str, script: str) -> None:
    file = data / (f"{name}.py" if "/" in name else f"{name}/__main__.py")
    file.parent.mkdir(exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(script)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Up:
    """A running `linewatch up`."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path, port: int) -> None:
        self.process = process
        self.log = log
        self.port = port

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"ready: http://127.0.0.1:{self.port}\n", self.log.read_text()

    def wait_for_log(self, text: str, times: int = 1) -> None:
        def has_come() -> bool:
            log = self.log.read_text()
            assert self.process.poll() is None, log
            return log.count(text) >= times

        wait_until(has_come)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Ask for a stop and return the seconds that it took."""
        family, began = self.family(), time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        seconds = time.monotonic() - began
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
        return seconds


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.05)


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LINEWATCH_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path} | dict(changes)


@contextmanager
def up(data: Path, *, host: str = "127.0.0.1", port: int | None = None, **changes: str) -> Iterator[Up]:
    port = free_port() if port is None else port
    log = data.parent / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", UP, str(data), host, str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(changes),
        ) as process,
    ):
        try:
            yield Up(process, log, port)
        finally:
            process.kill()  # its children end with it


def refusal(data: Path, *, host: str = "127.0.0.1", port: int | None = None, code: int = 1, **changes: str) -> str:
    """The one line of an `up` that could not start."""
    done = subprocess.run(
        [sys.executable, "-c", UP, str(data), host, str(free_port() if port is None else port)],
        capture_output=True,
        text=True,
        env=environment(changes),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("linewatch: ")
    assert "Traceback" not in done.stderr
    return lines[-1]


def status_of(url: str) -> int:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310 - our own address
        return int(answer.status)


# The real system


def test_it_comes_up_takes_requests_stops_and_comes_up_again(folder: Path) -> None:
    data = folder / "data"
    for _ in range(2):
        with up(data) as system:
            system.wait_until_ready()
            assert status_of(f"http://127.0.0.1:{system.port}/readyz") == 200
            names = {line.split()[2] for line in system.log.read_text().splitlines() if " | " in line}
            assert {"postgres", "valkey"} <= names
            assert system.stop() < 30
            assert system.process.stdout is not None
            assert system.process.stdout.read() == "", "the ready line comes once, and nothing after it"
            assert "Traceback" not in system.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_nothing_of_it_is_left_when_it_is_killed_and_it_comes_back(folder: Path) -> None:
    with up(folder / "data") as system:
        system.wait_until_ready()
        family = system.family()
        assert len(family) > 5
        system.process.kill()
        assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []
    with up(folder / "data") as system:
        system.wait_until_ready()
        system.stop(signal.SIGINT)


def test_each_part_of_it_is_started_again_after_a_kill(folder: Path) -> None:
    with up(folder / "data") as system:
        system.wait_until_ready()
        direct = psutil.Process(system.process.pid).children()
        assert len(direct) == 6, "postgres, valkey, api, scoring, io, dispatcher"
        for process in direct:
            process.kill()
        system.wait_for_log("ended (SIGKILL)", times=6)
        url = f"http://127.0.0.1:{system.port}/readyz"

        def is_back() -> bool:
            try:
                return status_of(url) == 200
            except OSError:
                return False

        wait_until(is_back)
        wait_until(lambda: len(psutil.Process(system.process.pid).children()) == 6)
        system.stop()


# The order of things, with stand-ins


def test_it_passes_on_what_the_services_need(stand_ins: Path) -> None:
    put(stand_ins, "migrations", "import os\nfor name in sorted(os.environ):\n    print(name, os.environ[name])")
    with up(stand_ins, PGPORT="1", LINEWATCH_MINIBATCH="7") as system:
        system.wait_until_ready()
        said = [line.split("| ", 1)[1] for line in system.log.read_text().splitlines() if " migrate " in line]
        system.stop()
    found = dict(line.split(" ", 1) for line in said if line.startswith(("LINEWATCH_", "PG")))
    assert found["LINEWATCH_DATABASE_URL"].startswith("postgresql+psycopg://linewatch:")
    assert found["LINEWATCH_REDIS_URL"].startswith("unix:///")
    assert found["LINEWATCH_STORE_URL"] == f"file://{stand_ins}/store"
    assert found["LINEWATCH_ARCHIVE_ROOTS"] == f"file://{stand_ins}/archive"
    assert (stand_ins / "archive").is_dir()
    assert (found["LINEWATCH_HOST"], found["LINEWATCH_PORT"]) == ("127.0.0.1", str(system.port))
    assert (found["LINEWATCH_DEVICE"], found["LINEWATCH_MINIBATCH"]) == ("cpu", "7")
    assert "PGPORT" not in found


def test_servers_of_ones_own_are_used_instead(stand_ins: Path) -> None:
    put(stand_ins, "migrations", "import os\nprint(*(os.environ[n] for n in os.environ if n.endswith('_URL')))")
    with up(
        stand_ins,
        LINEWATCH_DATABASE_URL="postgresql+psycopg://me@elsewhere/parts",
        LINEWATCH_REDIS_URL="redis://elsewhere",
        LINEWATCH_STORE_URL="file:///elsewhere",
        LINEWATCH_ARCHIVE_ROOTS="/elsewhere",
    ) as system:
        system.wait_until_ready()
        said = system.log.read_text()
        assert {"postgresql+psycopg://me@elsewhere/parts", "redis://elsewhere", "file:///elsewhere"} <= set(
            said.split()
        )
        assert len(system.family()) == 4
        system.stop()
    assert not any((stand_ins / name).exists() for name in ("postgres", "valkey", "store", "archive"))


def test_threads_are_shared_out_unless_they_are_given(stand_ins: Path) -> None:
    with up(stand_ins, OMP_NUM_THREADS="3") as system:
        system.wait_until_ready()
        system.wait_for_log("| threads 3\n")
        system.stop()


def test_a_migration_that_fails_ends_it_with_its_reason(stand_ins: Path) -> None:
    put(stand_ins, "migrations", "raise SystemExit('the schema is newer than this version')")
    assert refusal(stand_ins).endswith("migrate failed (exit status 1): the schema is newer than this version")


def test_a_service_that_never_works_ends_it_with_its_reason(stand_ins: Path) -> None:
    put(stand_ins, "celery", "raise SystemExit('no CUDA device')")
    line = refusal(stand_ins)
    assert "does not start" in line
    assert line.endswith("no CUDA device")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_is_starting_stops_it(stand_ins: Path, number: signal.Signals) -> None:
    put(stand_ins, "migrations", "import time\nprint('waits for a lock', flush=True)\ntime.sleep(600)")
    with up(stand_ins) as system:
        system.wait_for_log("waits for a lock")
        system.stop(number)
        assert system.process.stdout is not None
        assert system.process.stdout.read() == ""


def test_a_stop_right_at_the_start_stops_it(stand_ins: Path) -> None:
    with up(stand_ins) as system:
        system.wait_for_log("valkey")
        system.stop()


def test_a_second_one_on_the_same_data_is_one_line(stand_ins: Path) -> None:
    with up(stand_ins) as system:
        system.wait_until_ready()
        line = refusal(stand_ins)
        assert f"in use by another linewatch (process {system.process.pid})" in line
        system.stop()


def test_a_port_in_use_is_one_line_and_nothing_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refusal(folder / "data", port=port)
    assert f"port {port} on 127.0.0.1 is in use" in line
    assert not (folder / "data/postgres").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another account")
def test_an_unreachable_data_directory_is_one_line_and_nothing_is_changed(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    before = closed.stat()
    assert f"cannot enter {closed}" in refusal(closed / "data")
    assert closed.stat().st_mode == before.st_mode
    assert list(closed.iterdir()) == []


def test_a_file_instead_of_a_folder_is_one_line(folder: Path) -> None:
    (folder / "file").touch()
    assert "choose another --data" in refusal(folder / "file")
    assert "choose another --data" in refusal(folder / "file/data")


def test_an_address_of_another_machine_is_one_line(folder: Path) -> None:
    assert "cannot listen on 192.0.2.1" in refusal(folder / "data", host="192.0.2.1")


def test_auth_off_is_refused_where_others_can_reach_it(folder: Path) -> None:
    line = refusal(folder / "data", host="0.0.0.0", code=2, LINEWATCH_AUTH="off")  # noqa: S104 - that is the point
    assert "LINEWATCH_AUTH=off is refused" in line
    assert not (folder / "data").exists()


def test_a_setting_that_is_wrong_is_one_line(folder: Path) -> None:
    assert "LINEWATCH_MINIBATCH" in refusal(folder / "data", code=2, LINEWATCH_MINIBATCH="many")


@pytest.mark.skipif(os.geteuid() != 0, reason="for root; without root every test here is this one")
def test_an_ordinary_user_can_run_it(stand_ins: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    interpreter = interpreter_for(nobody)
    for path in (stand_ins.parent, stand_ins, *stand_ins.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    port, log = free_port(), stand_ins.parent / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [interpreter, "-c", UP, str(stand_ins), "127.0.0.1", str(port)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment({"PYTHONPATH": import_path(), "HOME": str(stand_ins.parent)}),
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
    """An interpreter of this version that the user may run, with all that is installed here; else the test is skipped.

    Root's own interpreter may lie below /root, where no one else can enter.
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
