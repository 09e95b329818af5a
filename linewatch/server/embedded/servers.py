"""PostgreSQL and Valkey for a `with` block: the demo's and the tests' way to real servers."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from types import TracebackType
from typing import Self

from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Command, describe_exit, has_ended, signal_group, spawn
from linewatch.server.embedded.data import locked, open_data_directory, private_folder, socket_folder
from linewatch.server.embedded.postgres import Postgres
from linewatch.server.embedded.valkey import Valkey

_PAUSE = 0.02
HINDRANCE_PATIENCE = 15.0  # seconds that a server of a killed parent may take to end


class RunningServer:
    """One server as a direct child; it can be stopped and started again with the same data and the same address."""

    def __init__(self, server: Postgres | Valkey, log: Path) -> None:
        self._server = server
        self._log = log
        self._command: Command | None = None
        self._process: Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process number of the server that runs."""
        return self._running().pid

    def start(self) -> None:
        """Start it and wait until it takes requests, however long it recovers.

        Raises:
            UpError: it ended instead; with its last line.
        """
        _wait_for_former(self._server.hindrance)
        self._command = self._server.command()
        with self._log.open("ab") as output:
            self._process = spawn(self._command, output)
        while not self._server.is_ready(self._process.pid):
            if has_ended(self._process):
                status = describe_exit(self._reap())
                raise UpError(f"{self._log.stem} did not start ({status}): {last_line(self._log)}")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        """Stop it in an orderly way, or harder where it does not obey; does nothing if it is not running."""
        if self._process is None or self._command is None:
            return
        for number, seconds in self._command.stop_signals:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
                break
            except TimeoutExpired:
                continue  # the next signal is a harder one, and the last is SIGKILL
        self._reap()

    def kill(self) -> None:
        """End it without a warning, as a crash does."""
        self._running()
        self._reap()

    def _running(self) -> Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self._log.stem} is not running")
        return self._process

    def _reap(self) -> int:
        process = self._running()
        self._process = None
        if process.returncode is None:
            signal_group(process, signal.SIGKILL)
        return process.wait()


class EmbeddedServers:
    """PostgreSQL and Valkey, their data kept in a folder across uses.

    Enter it in the main thread: the servers end with the thread that started them.

    Attributes:
        database_url: for `LINEWATCH_DATABASE_URL`; known inside the block.
        redis_url: for `LINEWATCH_REDIS_URL`; known inside the block.
        postgres, valkey: the running servers, to be stopped and started by those who test just that.
    """

    database_url: str
    redis_url: str
    postgres: RunningServer
    valkey: RunningServer

    def __init__(self, data: Path, *, fsync: bool = True) -> None:
        """`fsync=False` is for data that may be lost with the machine's power."""
        self._given = data
        self._fsync = fsync
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start both.

        Raises:
            UpError: they cannot be started; nothing is left running.
        """
        with ExitStack() as stack:
            data, account = open_data_directory(self._given)
            stack.enter_context(locked(data))
            sockets = socket_folder(data, account)
            postgres = Postgres(data, account, sockets, fsync=self._fsync)
            valkey = Valkey(data, account, sockets, fsync=self._fsync)
            logs = private_folder(data / "logs")
            if not postgres.is_initialised:
                _initialise(postgres, logs / "initdb.log")

            self.database_url, self.redis_url = postgres.url, valkey.url
            self.postgres = RunningServer(postgres, logs / "postgres.log")
            stack.callback(self.postgres.stop)
            self.postgres.start()
            self.valkey = RunningServer(valkey, logs / "valkey.log")
            stack.callback(self.valkey.stop)
            _start_valkey(self.valkey, valkey)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop both and let go of the folder."""
        self._stack.close()


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"it said nothing (see {log})"


def _initialise(postgres: Postgres, log: Path) -> None:
    try:
        with log.open("wb") as output:
            status = spawn(postgres.initialise_command(), output).wait()
        if status != 0:
            raise UpError(f"the database could not be made ({describe_exit(status)}): {last_line(log)}")
        postgres.adopt()
    finally:
        postgres.forget_initialising()


def _start_valkey(running: RunningServer, valkey: Valkey) -> None:
    """What the queue holds is disposable: should it not load, it starts empty."""
    try:
        running.start()
    except UpError:
        if valkey.move_aside() is None:
            raise
        running.start()


def _wait_for_former(hindrance: Callable[[], str | None]) -> None:
    give_up = time.monotonic() + HINDRANCE_PATIENCE
    while (reason := hindrance()) is not None:
        if time.monotonic() > give_up:
            raise UpError(reason)
        time.sleep(_PAUSE)
