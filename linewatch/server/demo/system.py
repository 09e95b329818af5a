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
_LOOK = 0.1  # seconds
_PATIENCE = 180.0  # seconds until it has to be ready
_KEPT_SETTING = "LINEWATCH_DEVICE"


def port_is_free(port: int) -> bool:
    """Whether something can listen on this port of the loopback address."""
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
        url: where it answers.
        log: what it says.
    """

    def __init__(self, process: Popen[bytes], url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self.log = log

    def serve(self) -> None:
        """Return when it has ended by itself, which it should not.

        Raises:
            CommandFailed: it has.
        """
        while not has_ended(self._process):
            time.sleep(_LOOK)
        raise CommandFailed(f"the system has ended by itself ({describe_exit(self._process.wait())}): see {self.log}")


@contextmanager
def running(data: Path, port: int) -> Iterator[System]:
    """Start the system with this data directory, on this port (0: any), and stop it at the end of the block.

    It would stop by itself if the demo were killed.

    Raises:
        CommandFailed: it does not start.
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
        for number in (signal.SIGINT, signal.SIGTERM):  # it is stopping already
            signal.signal(number, signal.SIG_IGN)
        process.terminate()
        process.wait()


def _wait_ready(process: Popen[bytes], log: Path) -> str:
    give_up = time.monotonic() + _PATIENCE
    while time.monotonic() < give_up:
        ended = has_ended(process)  # looked at before the log, so that its last words are read
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith(_READY):
                return line.removeprefix(_READY)
        if ended:
            last = lines[-1] if lines else "it said nothing"
            raise CommandFailed(last.removeprefix("linewatch: "))
        time.sleep(_LOOK)
    raise CommandFailed(f"the system was not ready after {_PATIENCE:g} s: see {log}")
