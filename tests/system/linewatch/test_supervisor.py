"""The supervisor with small scripts as services: restarts, log lines, and no leftover processes."""

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
PATIENCE = 60.0  # seconds until a test fails; normally everything is much faster


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervisor(log: io.StringIO) -> Iterator[Supervisor]:
    with Supervisor(Logs(log)) as supervisor:
        yield supervisor


def python(script: str, *, grace: float = PATIENCE) -> Callable[[], Command]:
    argv = (sys.executable, "-u", "-c", script)
    return lambda: Command(argv, dict(os.environ), stop_signals=((signal.SIGTERM, grace),))


def until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE

    def condition_met() -> bool:
        assert time.monotonic() < give_up, "timed out"
        return condition()

    assert supervisor.run_until(condition_met)


def pid_of(supervisor: Supervisor, name: str) -> int:
    until(supervisor, lambda: supervisor.pid(name) is not None)
    pid = supervisor.pid(name)
    assert pid is not None
    return pid


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_killed_service_is_restarted_and_the_others_continue(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.add(Service("one", python(SLEEPER), is_ready=lambda pid: True))
    supervisor.add(Service("two", python(SLEEPER), is_ready=lambda pid: True))
    first, second = pid_of(supervisor, "one"), pid_of(supervisor, "two")
    until(supervisor, lambda: supervisor.is_ready("one", "two"))
    os.kill(first, signal.SIGKILL)
    until(supervisor, lambda: supervisor.pid("one") not in (first, None))
    assert supervisor.pid("two") == second
    assert "one          | ended (SIGKILL) after" in log.getvalue()
    assert "restarting in 0.5 s" in log.getvalue()


def test_pauses_double_up_to_the_maximum(
    supervisor: Supervisor, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1.5)
    supervisor.add(Service("one", python("raise SystemExit(3)"), is_ready=lambda pid: True))
    supervisor._children["one"].was_ever_ready = True
    until(supervisor, lambda: log.getvalue().count("restarting") == 4)
    pauses = [line.split(" in ")[1] for line in log.getvalue().splitlines() if "restarting" in line]
    assert pauses == ["0.5 s", "1 s", "1.5 s", "1.5 s"]
    assert "ended (exit status 3)" in log.getvalue()


def test_a_service_that_was_ready_is_restarted_soon(
    supervisor: Supervisor, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_PAUSE", 0.75)
    supervisor.add(Service("one", python(SLEEPER), is_ready=lambda pid: True))
    for deaths in range(1, 4):
        until(supervisor, lambda: supervisor.is_ready("one"))
        os.kill(pid_of(supervisor, "one"), signal.SIGKILL)
        until(supervisor, lambda: log.getvalue().count("restarting") == deaths)  # noqa: B023 - it is called at once
    pauses = [line.split(" in ")[1] for line in log.getvalue().splitlines() if "restarting" in line]
    assert pauses == ["0.5 s", "0.75 s", "0.75 s"]


def test_a_long_run_resets_the_pause(supervisor: Supervisor, log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_RESET_AGE", 0.0)
    supervisor.add(Service("one", python("raise SystemExit(3)"), is_ready=lambda pid: True))
    until(supervisor, lambda: log.getvalue().count("restarting in 0.5 s") == 3)


def test_a_service_that_never_starts_ends_the_supervisor_with_its_last_line(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    script = "print('first')\nraise SystemExit('no such device')"
    supervisor.add(Service("one", python(script), is_ready=lambda pid: False))
    with pytest.raises(
        ServiceError, match="one does not start: 4 starts failed, the last with exit status 1: no such"
    ) as e:
        supervisor.run_until(lambda: False)
    assert e.value.name == "one"
    assert e.value.lines[-2:] == ["first", "no such device"]


def test_a_missing_program_is_a_one_line_error(supervisor: Supervisor) -> None:
    supervisor.add(Service("one", lambda: Command(("/no/such/program",), {})))
    with pytest.raises(ServiceError, match=r"one cannot be started .*No such file"):
        supervisor.run_until(lambda: False)


def test_a_job_runs_to_its_end_while_services_continue(supervisor: Supervisor, log: io.StringIO) -> None:
    supervisor.add(Service("one", python(SLEEPER)))
    assert supervisor.run_job("job", python("print('done', end='')"))
    assert "job          | done\n" in log.getvalue()
    assert supervisor.pid("one") is not None


def test_a_job_that_fails_is_an_error(supervisor: Supervisor) -> None:
    with pytest.raises(ServiceError, match=r"job failed \(exit status 1\): table is locked"):
        supervisor.run_job("job", python("raise SystemExit('table is locked')"))


def test_the_output_of_a_quiet_job_is_logged_when_it_fails(supervisor: Supervisor, log: io.StringIO) -> None:
    with pytest.raises(ServiceError) as failed:
        supervisor.run_job("job", python("print('some')\nraise SystemExit(1)"), is_quiet=True)
    assert failed.value.lines == ["some"]
    assert "some" not in log.getvalue()


def test_long_and_unfinished_lines_do_not_block(supervisor: Supervisor, log: io.StringIO) -> None:
    flood = "import sys\nsys.stdout.write('x' * 1_000_000)\nsys.stdout.write('\\nend')\nsys.stdout.flush()"
    supervisor.add(Service("slow", python("import sys, time\nsys.stdout.write('begun')\ntime.sleep(600)")))
    assert supervisor.run_job("flood", python(flood))
    lines = [line.split("| ", 1)[1] for line in log.getvalue().splitlines() if " flood " in line]
    assert sum(line.count("x") for line in lines) == 1_000_000
    assert max(map(len, lines)) <= 8192
    assert lines[-1] == "end"


def test_bytes_that_are_not_utf_8_are_logged_too(supervisor: Supervisor, log: io.StringIO) -> None:
    script = "import sys\nsys.stdout.buffer.write(b'caf\\xc3\\xa9 \\xff\\r\\n')"
    assert supervisor.run_job("job", python(script))
    assert "| café \ufffd\n" in log.getvalue()


def test_a_start_blocker_is_waited_for_then_an_error(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["in the way", "in the way", None]
    supervisor.add(Service("one", python(SLEEPER), start_blocker=lambda: answers.pop(0) if answers else None))
    pid_of(supervisor, "one")
    monkeypatch.setattr(module, "START_BLOCKER_TIMEOUT", 0.1)
    supervisor.add(Service("two", python(SLEEPER), start_blocker=lambda: "still in the way"))
    with pytest.raises(UpError, match="still in the way"):
        supervisor.run_until(lambda: False)


def test_a_failed_start_can_suggest_a_remedy(
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


def test_children_of_a_dead_service_are_killed(supervisor: Supervisor, tmp_path: Path) -> None:
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


def test_stages_are_stopped_one_after_another(log: io.StringIO) -> None:
    script = (
        "import signal, sys, time\nname = {name!r}\n"
        "def stop(*_):\n    time.sleep(0.3)\n    sys.exit(print(name, 'has stopped'))\n"
        "signal.signal(signal.SIGTERM, stop)\nprint(name, 'is up')\ntime.sleep(600)"
    )
    with Supervisor(Logs(log)) as supervisor:
        for stage, name in ((2, "base"), (0, "api"), (1, "worker")):
            supervisor.add(Service(name, python(script.format(name=name)), stage=stage))
        until(supervisor, lambda: log.getvalue().count("is up") == 3)
    ends = [line.split("| ")[1] for line in log.getvalue().splitlines() if "has stopped" in line]
    assert ends == ["api has stopped", "worker has stopped", "base has stopped"]


DEAF = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf')\ntime.sleep(600)"


def test_a_service_that_ignores_the_signal_is_killed_after_its_grace_period(log: io.StringIO) -> None:
    with Supervisor(Logs(log)) as supervisor:
        supervisor.add(Service("one", python(DEAF, grace=0.2)))
        until(supervisor, lambda: "deaf" in log.getvalue())
        pid = pid_of(supervisor, "one")
    assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_requests_a_stop(log: io.StringIO, number: signal.Signals) -> None:
    inherited = signal.signal(number, signal.SIG_DFL)  # the parent may have ignored the signal
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


def test_a_second_signal_stops_at_once() -> None:
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
        assert "stopping immediately" in parent.stdout.read()
        assert parent.wait(PATIENCE) == 0
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_no_service_survives_a_killed_supervisor() -> None:
    with run_in_child(SUPERVISE) as parent:
        assert parent.stdout is not None
        output = ""
        while output.count("deaf") < 2:
            output += parent.stdout.readline()
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) == 2
        parent.kill()
    assert psutil.wait_procs(family, timeout=PATIENCE)[1] == []


def test_a_log_that_is_not_read_blocks_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream, Path(os.devnull).open("w") as nowhere:
        with Supervisor(Logs(stream)) as supervisor:
            assert supervisor.run_job("job", python("print('to no one')\nprint('again')"))
        os.dup2(nowhere.fileno(), stream.fileno())  # so that closing the stream can flush its buffer
