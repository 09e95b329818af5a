"""Child processes that end with their parent, and that may run as another account.

On Linux the kernel sends each child its death signal when the parent ends, even after SIGKILL. macOS has no such
signal: the children of a parent that was killed with SIGKILL run on until the next start finds them.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

_PR_SET_PDEATHSIG = 1

# Loaded on import, because nothing may be imported or looked up between fork and exec.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """An account of the operating system that a child runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """A program to start, and how to stop it.

    Attributes:
        argv: the program and its arguments.
        env: the complete environment.
        account: the account to run as; None for the parent's.
        stdin: the child's standard input. Pass secrets here: every user can read a command line.
        death_signal: sent by the kernel when the parent ends.
        stop_signals: the signals of an orderly stop, and the seconds that each may take; SIGKILL follows the last.
        hard_signal: ends the child at once without damage to its data.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    account: Account | None = None
    cwd: Path | None = None
    stdin: bytes = b""
    death_signal: signal.Signals = signal.SIGKILL
    stop_signals: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 8.0),)
    hard_signal: signal.Signals = signal.SIGKILL


def spawn(command: Command, output: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start a child in a new session. Its standard output and standard error both go to `output`.

    Call it from the main thread: the kernel sends the death signal when the *thread* that forked ends.

    Raises:
        OSError: the program cannot be executed.
    """
    with tempfile.TemporaryFile() as stdin:
        stdin.write(command.stdin)
        stdin.seek(0)
        return subprocess.Popen(
            command.argv,
            env=dict(command.env),
            cwd=command.cwd,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the parent, which stops the children in order
            preexec_fn=_tie_to_parent(command.death_signal),  # after setuid, which clears the signal
            **credentials(command.account),
        )


class _Credentials(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[str | int]


def credentials(account: Account | None) -> _Credentials:
    """Return the arguments with which `subprocess.Popen` runs a child as `account`, without further groups."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _tie_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if _libc is None:
        return None
    libc, parent, number = _libc, os.getpid(), int(death_signal)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended before prctl was called
            os._exit(1)

    return tie


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child that was not waited for yet, and to all processes of its group."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # the group has ended already
        return


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether a child has ended. It is not reaped, so that the number of its group is not reused yet."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def describe_exit(returncode: int) -> str:
    """Describe a return code, as `exit status 3` or `SIGKILL`."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-returncode}"
