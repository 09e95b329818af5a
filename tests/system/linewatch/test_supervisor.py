"""The supervisor with small stand-ins for services: what it starts again, what it says, and that it leaves nothing."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from linewatch.server import supervisor as module
from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Command
from linewatch.server.logs import Logs
from linewatch.server.supervisor import Service, ServiceError, Supervisor

SLEEPER = "import time\nprint('here', flush=True)\ntime.sleep(600)"
PATIENCE = 60.0  # seconds after which a test gives up; nothing is expected to take that long


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(log: io.StringIO) -> Iterator[Supervisor]:
    with Supervisor(Logs(log)) as made:
        yield made


def python(script: str, *, grace: float = PATIENCE) -> Callable[[], Command]:
    argv = (sys.executable, "-u", "-c", script)
    return lambda: Command(argv, dict(os.environ), stop_signals=((signal.SIGTERM, grace),))


def until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE

    def looked() -> bool:
        assert time.monotonic() < give_up, "it did not happen"
        return condition()

    assert supervisor.run_until(looked)


def pid_of(supervisor: Supervisor, name: str) -> int:
    until(supervisor, lambda: supervisor.pid(name) is not None)
    pid = supervisor.pid(name)
    assert pid is not None
    return pid


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_service_is_started_again_and_the_others_go_on(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.add(Service("one", python(SLEEPER), is_ready=lambda pid: True))
    supervisor.add(Service("two", python(SLEEPER), is_ready=lambda pid: True))
    one, two = pid_of(supervisor, "one"), pid_of(supervisor, "two")
    until(supervisor, lambda: supervisor.is_ready("one", "two"))
    os.kill(one, signal.SIGKILL)
    until(supervisor, lambda: supervisor.pid("one") not in (one, None))
    assert supervisor.pid("two") == two
    assert "one          | ended (SIGKILL) after" in log.getvalue()
    assert "starts again in 0.5 s" in log.getvalue()


def test_pauses_double_up_to_the_longest(
    supervisor: Supervisor, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1.5)
    supervisor.add(Service("one", python("raise SystemExit(3)"), is_ready=lambda pid: True))
    supervisor._children["one"].was_ever_ready = True
    until(supervisor, lambda: log.getvalue().count("starts again") == 4)
    pauses = [line.split(" in ")[1] for line in log.getvalue().splitlines() if "starts again" in line]
    assert pauses == ["0.5 s", "1 s", "1.5 s", "1.5 s"]
    assert "ended (exit status 3)" in log.getvalue()


def test_a_long_life_earns_the_first_pause_again(
    supervisor: Supervisor, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONG_LIFE", 0.0)
    supervisor.add(Service("one", python("raise SystemExit(3)"), is_ready=lambda pid: True))
    until(supervisor, lambda: log.getvalue().count("starts again in 0.5 s") == 3)


def test_a_service_that_never_works_ends_it_with_its_last_line(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    script = "print('first')\nraise SystemExit('no such device')"
    supervisor.add(Service("one", python(script), is_ready=lambda pid: False))
    with pytest.raises(
        ServiceError, match="one does not start: it ended 4 times, last with exit status 1: no such"
    ) as e:
        supervisor.run_until(lambda: False)
    assert e.value.name == "one"
    assert e.value.lines[-2:] == ["first", "no such device"]


def test_a_program_that_does_not_exist_is_one_line(supervisor: Supervisor) -> None:
    supervisor.add(Service("one", lambda: Command(("/no/such/program",), {})))
    with pytest.raises(ServiceError, match=r"one cannot be started .*No such file"):
        supervisor.run_until(lambda: False)


def test_a_job_is_run_to_its_end_while_services_go_on(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.add(Service("one", python(SLEEPER)))
    assert supervisor.run_job("job", python("print('done', end='')"))
    assert "job          | done\n" in log.getvalue()
    assert supervisor.pid("one") is not None


def test_a_job_that_fails_is_an_error(supervisor: Supervisor) -> None:
    with pytest.raises(ServiceError, match=r"job failed \(exit status 1\): table is locked"):
        supervisor.run_job("job", python("raise SystemExit('table is locked')"))


def test_what_is_quiet_is_heard_when_it_fails(supervisor: Supervisor, log: io.StringIO) -> None:
    with pytest.raises(ServiceError) as failed:
        supervisor.run_job("job", python("print('some')\nraise SystemExit(1)"), is_quiet=True)
    assert failed.value.lines == ["some"]
    assert "some" not in log.getvalue()


def test_long_and_unfinished_lines_keep_no_one_waiting(supervisor: Supervisor, log: io.StringIO) -> None:
    flood = "import sys\nsys.stdout.write('x' * 1_000_000)\nsys.stdout.write('\\nend')\nsys.stdout.flush()"
    supervisor.add(Service("slow", python("import sys, time\nsys.stdout.write('begun')\ntime.sleep(600)")))
    assert supervisor.run_job("flood", python(flood))
    lines = [line.split("| ", 1)[1] for line in log.getvalue().splitlines() if " flood " in line]
    assert sum(line.count("x") for line in lines) == 1_000_000
    assert max(map(len, lines)) <= 8192
    assert lines[-1] == "end"


def test_bytes_that_are_no_text_are_shown_all_the_same(supervisor: Supervisor, log: io.StringIO) -> None:
    script = "import sys\nsys.stdout.buffer.write(b'caf\\xc3\\xa9 \\xff\\r\\n')"
    assert supervisor.run_job("job", python(script))
    assert "| café \ufffd\n" in log.getvalue()


def test_a_hindrance_is_waited_for_and_then_an_error(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["in the way", "in the way", None]
    supervisor.add(Service("one", python(SLEEPER), hindrance=lambda: answers.pop(0) if answers else None))
    pid_of(supervisor, "one")
    monkeypatch.setattr(module, "HINDRANCE_PATIENCE", 0.1)
    supervisor.add(Service("two", python(SLEEPER), hindrance=lambda: "still in the way"))
    with pytest.raises(UpError, match="still in the way"):
        supervisor.run_until(lambda: False)


def test_a_failed_start_may_have_a_remedy(
    supervisor: Supervisor, log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    cure = tmp_path / "cure"

    def remedy(status: int) -> str:
        cure.touch()
        return f"cured after {status}"

    script = f"import os, time\nif not os.path.exists({str(cure)!r}): raise SystemExit(7)\ntime.sleep(600)"
    supervisor.add(Service("one", python(script), is_ready=lambda pid: cure.exists(), after_failed_start=remedy))
    until(supervisor, lambda: supervisor.is_ready("one"))
    assert "cured after 7" in log.getvalue()


def test_what_a_dead_service_had_started_dies_with_it(supervisor: Supervisor, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = (
        "import subprocess, pathlib, time\n"
        f"child = subprocess.Popen(['sleep', '600'])\npathlib.Path({str(note)!r}).write_text(str(child.pid) + ' ')\n"
        "time.sleep(600)"
    )
    supervisor.add(Service("one", python(script), is_ready=lambda pid: True))
    until(supervisor, lambda: note.exists() and note.read_text().endswith(" "))
    grandchild = int(note.read_text())
    os.kill(pid_of(supervisor, "one"), signal.SIGKILL)
    until(supervisor, lambda: is_gone(grandchild))


def test_stages_are_stopped_one_after_the_other(log: io.StringIO) -> None:
    script = (
        "import signal, sys, time\nname = {name!r}\n"
        "def stop(*_):\n    time.sleep(0.3)\n    sys.exit(print(name, 'has stopped'))\n"
        "signal.signal(signal.SIGTERM, stop)\nprint(name, 'is up')\ntime.sleep(600)"
    )
    with Supervisor(Logs(log)) as supervisor:
        for stage, name in ((2, "base"), (0, "door"), (1, "worker")):
            supervisor.add(Service(name, python(script.format(name=name)), stage=stage))
        until(supervisor, lambda: log.getvalue().count("is up") == 3)
    ends = [line.split("| ")[1] for line in log.getvalue().splitlines() if "has stopped" in line]
    assert ends == ["door has stopped", "worker has stopped", "base has stopped"]


DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)"


def test_who_does_not_obey_is_killed_after_its_time(log: io.StringIO) -> None:
    with Supervisor(Logs(log)) as supervisor:
        supervisor.add(Service("one", python(DEAF, grace=0.2)))
        until(supervisor, lambda: "deaf" in log.getvalue())
        pid = pid_of(supervisor, "one")
    assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_for_a_stop(log: io.StringIO, number: signal.Signals) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may have had it ignored
    try:
        with Supervisor(Logs(log)) as supervisor:
            supervisor.add(Service("one", python(SLEEPER)))
            pid = pid_of(supervisor, "one")
            os.kill(os.getpid(), number)
            assert supervisor.run_until(lambda: False) is False
        assert is_gone(pid)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, inherited)


def test_a_stop_during_a_job_ends_the_job(log: io.StringIO) -> None:
    with Supervisor(Logs(log)) as supervisor:
        supervisor.add(
            Service("one", python("import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\nsignal.pause()"))
        )
        assert supervisor.run_job("job", python("import time\ntime.sleep(600)")) is False
        job = supervisor.pid("job")
    assert job is None or is_gone(job)


def run_in_child(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[3],
    )


SUPERVISE = f"""
import os, signal, sys
from linewatch.server.embedded.children import Command
from linewatch.server.logs import Logs
from linewatch.server.supervisor import Service, Supervisor
def service(name):
    argv = (sys.executable, "-u", "-c", {DEAF!r})
    return Service(name, lambda: Command(argv, dict(os.environ), stop_signals=((signal.SIGTERM, 600.0),)))
with Supervisor(Logs(sys.stdout)) as supervisor:
    supervisor.add(service("one"))
    supervisor.add(service("two"))
    supervisor.run_until(lambda: False)
"""


def test_a_second_signal_waits_for_no_one() -> None:
    with run_in_child(SUPERVISE) as parent:
        assert parent.stdout is not None
        while "deaf" not in parent.stdout.readline():
            pass
        parent.send_signal(signal.SIGTERM)
        while "stopping" not in parent.stdout.readline():
            pass
        time.sleep(2 * module.SAME_SIGNAL)
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(signal.SIGTERM)
        assert "stopping at once" in parent.stdout.read()
        assert parent.wait(PATIENCE) == 0
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_nothing_is_left_when_the_supervisor_is_killed() -> None:
    with run_in_child(SUPERVISE) as parent:
        assert parent.stdout is not None
        said = ""
        while said.count("deaf") < 2:
            said += parent.stdout.readline()
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 2
        parent.kill()
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


def test_a_log_that_no_one_reads_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream, Path(os.devnull).open("w") as nowhere:
        with Supervisor(Logs(stream)) as supervisor:
            assert supervisor.run_job("job", python("print('to no one')\nprint('again')"))
        os.dup2(nowhere.fileno(), stream.fileno())  # what is left in the stream can be written on closing
