"""The data directory: its owner, its folders, and the account that its servers run as.

Only folders that this module creates are given to another account. It changes no other permissions.
"""

import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Account, credentials

# The full path of a socket must fit into 104 bytes on macOS and 108 on Linux, with the final zero.
_LONGEST_SOCKET = 103
_SOCKET_NAMES = (".s.PGSQL.5432", "valkey.sock")
# Other characters have a meaning in PostgreSQL's list of folders (commas, quotes) or in URLs.
_PLAIN_PATH = re.compile(r"[\w./+-]+", re.ASCII)

SERVER_ACCOUNT = "linewatch"
_CREATE_ACCOUNT = (
    "useradd",
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir",
    "/nonexistent",
    "--shell",
    "/usr/sbin/nologin",
)
_CREATE_TRIES, _CREATE_PAUSE = 20, 0.25  # another process may hold the lock of the account files
_FIRST_BLOCKED = 'for folder in "$@"; do [ -x "$folder" ] || { printf %s "$folder"; exit 0; }; done'


def server_environment() -> dict[str, str]:
    """Return the environment of the servers, without variables such as `PG*` that would change their behaviour."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | kept


def server_account(data: Path) -> Account | None:
    """Return the account that the servers run as.

    This is None, the current user, unless the current user is root: PostgreSQL does not run as root. Then it is the
    owner of the database in the data directory, or else the account `linewatch`, which is created if it is missing. No
    other service uses it, unlike `nobody`.

    Raises:
        UpError: the account does not exist, or cannot be created.
    """
    if os.geteuid() != 0:
        return None
    database = data / "postgres"
    if database.is_dir() and (owner := database.stat().st_uid) != 0:
        try:
            return _as_account(pwd.getpwuid(owner))
        except KeyError as error:
            raise UpError(
                f"{database} belongs to user id {owner}, which has no account here: "
                "create that account, or choose another --data"
            ) from error
    return _find_account() or _create_account()


def _find_account() -> Account | None:
    try:
        return _as_account(pwd.getpwnam(SERVER_ACCOUNT))
    except KeyError:
        return None


def _create_account() -> Account:
    command = [*_CREATE_ACCOUNT, SERVER_ACCOUNT]
    for _ in range(_CREATE_TRIES):
        try:
            outcome = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            reason = f"{command[0]}: {error.strerror}"
            break
        if (account := _find_account()) is not None:  # created here, or by another process at the same time
            return account
        reason = outcome.stderr.strip() or f"{command[0]} ended with {outcome.returncode}"
        time.sleep(_CREATE_PAUSE)
    raise UpError(
        f"as root, the database server needs a separate account, and none could be created ({reason}): "
        f"create a system account named {SERVER_ACCOUNT!r}, or run linewatch as an ordinary user"
    )


def _as_account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def ask_as(account: Account | None, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a short shell script as `account` and collect its output.

    Raises:
        UpError: this process may not become that account.
    """
    try:
        return subprocess.run(
            ["/bin/sh", "-c", script, "sh", *arguments],
            env=server_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            **credentials(account),
        )
    except OSError as error:
        if account is None:
            raise
        raise UpError(
            f"cannot run the servers as user {account.name!r} ({error.strerror}): run linewatch as an ordinary user, "
            "or set LINEWATCH_DATABASE_URL and LINEWATCH_REDIS_URL to servers of your own"
        ) from error


def require_reachable(data: Path, account: Account | None) -> None:
    """Check that the servers' account can enter every folder on the path to the data directory.

    Raises:
        UpError: it cannot. The message names the first folder that it cannot enter. Nothing was created or changed.
    """
    if account is None:
        return
    folders = [folder for folder in [*reversed(data.parents), data] if folder.is_dir()]
    blocked = ask_as(account, _FIRST_BLOCKED, *map(str, folders)).stdout
    if not blocked:
        return
    mode = stat.S_IMODE(Path(blocked).stat().st_mode)
    raise UpError(
        f"the database server runs as user {account.name!r}, which cannot enter {blocked} (mode {mode:04o}), "
        f"so it cannot reach the data directory {data}: choose another, for example --data /var/lib/linewatch"
    )


def absolute(data: Path) -> Path:
    """Return the absolute path of the data directory, with links resolved.

    Raises:
        UpError: it starts with a `~` that cannot be expanded, or its links form a loop.
    """
    try:
        return data.expanduser().resolve()
    except RuntimeError as error:
        raise UpError(f"--data {data} cannot be followed ({error}): choose another") from error


def open_data_directory(data: Path) -> tuple[Path, Account | None]:
    """Open the data directory; create it if it is missing.

    Returns:
        Its absolute path, and the account that its servers run as.

    Raises:
        UpError: the directory cannot be created, written to, or reached by that account.
    """
    data = absolute(data)
    account = server_account(data)
    require_reachable(data, account)
    make_data_directory(data)
    return data, account


def make_data_directory(data: Path) -> None:
    """Create the data directory and missing folders above it.

    Raises:
        UpError: it cannot be created or written to.
    """
    try:
        for folder in [*reversed(data.parents), data]:
            if folder.exists():
                continue
            folder.mkdir()
            # For root, the servers' account must be able to pass through; only the owner can list the folder.
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        if not data.is_dir():
            raise UpError(f"{data} is not a folder: choose another --data")
        if not os.access(data, os.W_OK | os.X_OK):
            raise UpError(f"the data directory {data} cannot be written to: choose another --data")
    except OSError as error:
        raise UpError(f"cannot create the data directory {data} ({error.strerror}): choose another --data") from error


def is_in_use(data: Path) -> bool:
    """Return whether a process holds the lock of the data directory."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Lock the data directory for this process. The kernel releases the lock however the process ends.

    Raises:
        UpError: another process holds the lock.
    """
    path = data / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UpError(f"cannot open {path} ({error.strerror}): was it created by another user?") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise UpError(
                f"the data directory {data} is in use by another linewatch (process {holder}): "
                "stop it first, or choose another --data"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def owned_folder(path: Path, account: Account | None) -> Path:
    """Return a 0700 folder that belongs to the servers' account; create it if it is missing.

    Raises:
        UpError: the path exists and is not a folder of that account.
    """
    uid = os.geteuid() if account is None else account.uid
    if not os.path.lexists(path):
        draft = path.with_name(path.name + ".making")
        if os.path.lexists(draft):
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        if account is not None:
            os.chown(draft, account.uid, account.gid, follow_symlinks=False)
        draft.rename(path)  # under its final name it always has the right owner
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid:
        owner = "your own user" if account is None else f"user {account.name!r}"
        raise UpError(
            f"{path} is not a folder of {owner} (its owner has id {status.st_uid}): "
            "run linewatch as the user who created it, or choose another --data"
        )
    return path


def private_folder(path: Path) -> Path:
    """Return a 0700 folder of the current user; create it if it is missing."""
    return owned_folder(path, None)


def archive_folder(data: Path) -> Path:
    """Return the folder for images to re-score; create it if it is missing. A setting can name other folders.

    Users own it: they may replace it with a link, and its permissions are not changed.
    """
    folder = data / "archive"
    folder.mkdir(exist_ok=True)
    return folder


def socket_folder(data: Path, account: Account | None) -> Path:
    """Return a 0700 folder for the servers' sockets; create it if it is missing.

    It is in the data directory if the path is short enough and needs no quoting. Otherwise it is in the temporary
    folder, under a name derived from the data directory.

    Raises:
        UpError: there is no suitable folder.
    """
    name = "linewatch-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    candidates = [data / "sockets", Path(tempfile.gettempdir(), name), Path("/tmp", name)]  # noqa: S108 - see lstat
    for folder in candidates:
        longest = max(len(os.fsencode(folder / socket)) for socket in _SOCKET_NAMES)
        if longest > _LONGEST_SOCKET or not _PLAIN_PATH.fullmatch(str(folder)):
            continue
        try:
            require_reachable(folder.parent, account)
        except UpError:
            if folder.parent == data:
                raise
            continue
        return owned_folder(folder, account)
    raise UpError(f"no folder for sockets has a path that is short enough: choose a shorter --data than {data}")


def kept_secret(path: Path) -> str:
    """Return the password in a file. If the file is missing, create it with a random password and mode 0600."""
    if not path.exists():
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
    return path.read_text().strip()
