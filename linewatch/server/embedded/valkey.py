"""The embedded Valkey server, on a Unix socket and with a password. Its data is in `DATA/valkey`.

The queue is disposable: everything in it is also in PostgreSQL. Data that cannot be loaded is moved aside.
"""

import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from linewatch.server.embedded.binaries import valkey_program
from linewatch.server.embedded.children import Account, Command
from linewatch.server.embedded.data import kept_secret, owned_folder, private_folder, server_environment


class Valkey:
    """The embedded queue: its command, state and URL.

    Attributes:
        url: for `LINEWATCH_REDIS_URL`; contains the password.
    """

    def __init__(self, data: Path, account: Account | None, sockets: Path, *, fsync: bool = True) -> None:
        """Find the program and the password; start nothing.

        Raises:
            UpError: the wheel is missing, or the folder belongs to another account.
        """
        self._program = valkey_program(data, account)
        self._account = account
        self._socket = sockets / "valkey.sock"
        self._fsync = fsync
        self._folder = owned_folder(data / "valkey", account)
        self._password = kept_secret(private_folder(data / "secrets") / "valkey-password")
        self.url = f"unix://:{quote(self._password, safe='')}@{self._socket}"

    def command(self) -> Command:
        """Run the server in the foreground. Its configuration, with the password, comes on standard input."""
        owned_folder(self._folder, self._account)
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "requirepass": self._password,
            "dir": str(self._folder),
            "daemonize": "no",
            "logfile": "",
            "loglevel": "warning",
            "hz": "2",  # it wakes so often for what it does in the background
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec" if self._fsync else "no",
            "aof-load-truncated": "yes",  # a kill in the middle of a write loses only that write
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

    def start_blocker(self) -> str | None:
        """Why the server cannot be started yet: an older one still answers on the socket."""
        if self._ping():
            return f"another Valkey still answers on {self._socket}: stop it first"
        return None

    def is_ready(self, pid: int) -> bool:
        """Whether the server answers. While it loads its data, it does not."""
        return b"+PONG" in self._ping()

    def move_aside(self) -> Path | None:
        """After a failed start, move the data to `DATA/valkey.unreadable`, so that the next start is empty.

        Returns:
            The new path; `None` if there was no data.
        """
        if not any(self._folder.iterdir()):
            return None
        aside = self._folder.with_name("valkey.unreadable")
        if aside.exists():
            shutil.rmtree(aside)
        self._folder.rename(aside)
        return aside

    def _ping(self) -> bytes:
        """The server's answers to AUTH and PING; empty if nothing answers."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            answers = b""
            try:
                client.connect(str(self._socket))
                client.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                while answers.count(b"\r\n") < len(("AUTH", "PING")) and (received := client.recv(256)):
                    answers += received
            except OSError:  # no socket, nobody listening, or no answer yet
                pass
            return answers


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
