"""PostgreSQL and Valkey for a `with` block. The demo and the tests use them."""

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

_POLL_INTERVAL = 0.02  # seconds
START_BLOCKER_TIMEOUT = 15.0  # seconds that a server of a killed parent may take to end


class RunningServer:
    """A server as a child process. You can stop it and start it again with the same data and address."""

    def __init__(self, server: Postgres | Valkey, log: Path) -> None:
        self._server = server
        self._log = log
        self._command: Command | None = None
        self._process: Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start the server and wait until it accepts requests, however long it recovers.

        Raises:
            UpError: the server ended instead; the message has the last line of its log.
        """
        _wait_until_unblocked(self._server.start_blocker)
        self._command = self._server.command()
        with self._log.open("ab") as output:
            self._process = spawn(self._command, output)
        while not self._server.is_ready(self._process.pid):
            if has_ended(self._process):
                status = describe_exit(self._reap())
                raise UpError(f"{self._log.stem} did not start ({status}): {last_line(self._log)}")
            time.sleep(_POLL_INTERVAL)

    def stop(self) -> None:
        """Stop the server, harder if it does not end in time. Does nothing if it is not running."""
        if self._process is None or self._command is None:
            return
        for number, seconds in self._command.stop_signals:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
                break
            except TimeoutExpired:
                continue  # the next signal is harder; SIGKILL follows the last
        self._reap()

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash."""
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
    """PostgreSQL and Valkey, with their data kept in a folder across uses.

    Enter the block in the main thread: the servers end with the thread that started them.

    Attributes:
        database_url: the value for `LINEWATCH_DATABASE_URL`; set inside the block.
        redis_url: the value for `LINEWATCH_REDIS_URL`; set inside the block.
        postgres, valkey: the running servers. Tests stop and start them.
    """

    database_url: str
    redis_url: str
    postgres: RunningServer
    valkey: RunningServer

    def __init__(self, data: Path, *, fsync: bool = True) -> None:
        """Use `fsync=False` only for data that may be lost in a power cut."""
        self._requested_data = data
        self._fsync = fsync
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start both servers.

        Raises:
            UpError: a server cannot be started; none is left running.
        """
        with ExitStack() as stack:
            data, account = open_data_directory(self._requested_data)
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
        """Stop both servers and unlock the folder."""
        self._stack.close()


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"no output (see {log})"


def _initialise(postgres: Postgres, log: Path) -> None:
    try:
        with log.open("wb") as output:
            status = spawn(postgres.initialise_command(), output).wait()
        if status != 0:
            raise UpError(f"the database could not be created ({describe_exit(status)}): {last_line(log)}")
        postgres.finish_initialisation()
    finally:
        postgres.remove_initdb_password()


def _start_valkey(running: RunningServer, valkey: Valkey) -> None:
    """Start Valkey. If its data does not load, start it empty: the queue is rebuilt from PostgreSQL."""
    try:
        running.start()
    except UpError:
        if valkey.move_aside() is None:
            raise
        running.start()


def _wait_until_unblocked(start_blocker: Callable[[], str | None]) -> None:
    deadline = time.monotonic() + START_BLOCKER_TIMEOUT
    while (reason := start_blocker()) is not None:
        if time.monotonic() > deadline:
            raise UpError(reason)
        time.sleep(_POLL_INTERVAL)
