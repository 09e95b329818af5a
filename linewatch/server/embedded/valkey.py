"""One Valkey server on a Unix socket, its data kept in `DATA/valkey`.

The queue is disposable: what is in it is found again from PostgreSQL, so data that does not load is moved aside.
"""

import shutil
import signal
import socket
from pathlib import Path

from linewatch.server.embedded.binaries import valkey_program
from linewatch.server.embedded.children import Account, Command
from linewatch.server.embedded.data import owned_folder, server_environment


class Valkey:
    """The embedded queue: its command, its state, its URL.

    Attributes:
        url: as `LINEWATCH_REDIS_URL` wants it.
    """

    def __init__(self, data: Path, account: Account | None, sockets: Path, *, fsync: bool = True) -> None:
        """Find the program; nothing is started.

        Raises:
            UpError: the wheel is missing, or its folder belongs to someone else.
        """
        self._program = valkey_program(data, account)
        self._account = account
        self._socket = sockets / "valkey.sock"
        self._fsync = fsync
        self._folder = owned_folder(data / "valkey", account)
        self.url = f"unix://{self._socket}"

    def command(self) -> Command:
        """The server itself, in the foreground, its configuration on standard input."""
        owned_folder(self._folder, self._account)
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "daemonize": "no",
            "logfile": "",
            "loglevel": "warning",
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec" if self._fsync else "no",
            "aof-load-truncated": "yes",  # a kill in the middle of a write costs that write only
        }
        return Command(
            argv=(str(self._program), "-"),
            env=server_environment(),
            account=self._account,
            cwd=Path("/"),
            stdin="".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()).encode(),
            death_signal=signal.SIGTERM,
            stop_signals=((signal.SIGTERM, 5.0),),
        )

    def hindrance(self) -> str | None:
        """Why the server cannot be started yet: one of a former parent still answers on the socket."""
        if self._ask(b"PING\r\n"):
            return f"another Valkey still answers on {self._socket}: stop it first"
        return None

    def is_ready(self, pid: int) -> bool:
        """Whether the server answers; while it loads its data it does not, however long."""
        return self._ask(b"PING\r\n").startswith(b"+PONG")

    def move_aside(self) -> Path | None:
        """After a start that failed: put the data where a person can look at it, so that the next start is empty.

        Returns:
            Where it lies now; `None` if there was none.
        """
        if not any(self._folder.iterdir()):
            return None
        aside = self._folder.with_name("valkey.unreadable")
        if aside.exists():
            shutil.rmtree(aside)
        self._folder.rename(aside)
        return aside

    def _ask(self, question: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self._socket))
                client.sendall(question)
                return client.recv(256)
            except OSError:  # not there, not listening, or not answering yet: it is not ready
                return b""


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
