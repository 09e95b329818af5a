"""The running system of the demo: `linewatch up` as a child process."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from linewatch.cli.failures import CommandFailed
from linewatch.server.embedded.children import Command, describe_exit, has_ended, spawn

_READY = "ready: "
_POLL_INTERVAL = 0.1  # seconds
_START_TIMEOUT = 180.0  # seconds
_KEPT_SETTING = "LINEWATCH_DEVICE"


def port_is_free(port: int) -> bool:
    """Return whether a program can listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class System:
    """A running `linewatch up`.

    Attributes:
        url: its address.
        log: the file with its output.
    """

    def __init__(self, process: Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self.log = log

    def serve(self) -> None:
        """Wait while the system runs.

        Raises:
            CommandFailed: the system has ended.
        """
        while not has_ended(self._process):
            time.sleep(_POLL_INTERVAL)
        raise CommandFailed(f"the system ended unexpectedly ({describe_exit(self._process.wait())}): see {self.log}")


@contextmanager
def running(data: Path, port: int) -> Iterator[System]:
    """Start the system with this data directory and port (0: any free port), and stop it at the end of the block.

    The system also stops if the demo is killed.

    Raises:
        CommandFailed: the system does not start.
    """
    log = data / "demo.log"
    argv = [sys.executable, "-m", "linewatch.cli", "up", "--port", str(port), "--data", str(data)]
    environment = {
        name: value for name, value in os.environ.items() if name == _KEPT_SETTING or not name.startswith("LINEWATCH_")
    }
    with log.open("wb") as output:
        process = spawn(Command(tuple(argv), environment, death_signal=signal.SIGTERM), output)
    try:
        yield System(process, _wait_ready(process, log), log)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a signal must not interrupt the stop
            signal.signal(number, signal.SIG_IGN)
        process.terminate()
        process.wait()


def _wait_ready(process: Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        ended = has_ended(process)  # check this before reading the log, so that no last line is missed
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith(_READY):
                return line.removeprefix(_READY)
        if ended:
            last_line = lines[-1] if lines else "the system ended without any output"
            raise CommandFailed(last_line.removeprefix("linewatch: "))
        time.sleep(_POLL_INTERVAL)
    raise CommandFailed(f"the system was not ready after {_START_TIMEOUT:g} s: see {log}")
