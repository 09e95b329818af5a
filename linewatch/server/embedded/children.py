"""Child processes that die with their parent, and that may run as another account.

On Linux the kernel itself sends each child its death signal when the parent is gone, also after SIGKILL. macOS has
nothing like it: there, a parent that was killed with SIGKILL leaves its children behind until the next start finds
them.
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

# Loaded here, because between fork and exec nothing may be imported or looked up.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Account:
    """An account of the operating system that a child runs as instead of the parent's."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to start, and how it is ended.

    Attributes:
        argv: the program and its arguments.
        env: the whole environment.
        account: the account to run as; `None` is the parent's own.
        stdin: what the child reads; never a secret on its command line, which every user can see.
        death_signal: sent by the kernel when the parent dies.
        stop_signals: signals of an orderly stop and the seconds that each may take; SIGKILL follows the last.
        hard_signal: what ends it at once without harm to its data.
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
    """Start a child in a session of its own, both its outputs joined in `output`.

    Call it from the main thread: the kernel's parent-death signal fires when the *thread* that forked ends.

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
            start_new_session=True,  # the terminal's Ctrl-C is for the parent, which stops all in order
            preexec_fn=_tie_to_parent(command.death_signal),  # after setuid, which clears the signal
            **credentials(command.account),
        )


class _Credentials(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[str | int]


def credentials(account: Account | None) -> _Credentials:
    """The arguments of `subprocess.Popen` that make a child run as `account` and with no other group."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _tie_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    if _libc is None:
        return None
    libc, parent, number = _libc, os.getpid(), int(death_signal)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above could ask for the signal
            os._exit(1)

    return tie


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child that was not waited for yet, and to all that it started in its session."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:  # nothing of the group is left, which is what was wanted
        return


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended, without reaping it: until then its group's number cannot be reused."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def describe_exit(returncode: int) -> str:
    """`exit status 3` or `SIGKILL`."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # a real-time signal has no name
        return f"signal {-returncode}"
