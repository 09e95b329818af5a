"""The data directory: its owner, its folders, and the account that its servers run as.

Only folders that are made here are ever given to another account; the permissions of nothing else are changed.
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

# The socket's whole path has to fit into 104 bytes on macOS and 108 on Linux, with the final zero.
_LONGEST_SOCKET = 103
_SOCKET_NAMES = (".s.PGSQL.5432", "valkey.sock")
# Commas and quotes mean something to PostgreSQL's list of folders, the others to URLs.
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
    """What the servers see of the environment: `PG*` and the like would change what they do."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"} | kept


def server_account(data: Path) -> Account | None:
    """The account for the servers: this user's, or `linewatch` for root, which PostgreSQL refuses to run as.

    A data directory with a database keeps the account that owns it. A missing account is created: no other service
    uses it, unlike `nobody`.

    Raises:
        UpError: the account does not exist and cannot be created.
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
        if (account := _find_account()) is not None:  # ours, or that of another process at the same moment
            return account
        reason = outcome.stderr.strip() or f"{command[0]} ended with {outcome.returncode}"
        time.sleep(_CREATE_PAUSE)
    raise UpError(
        f"as root, the database server needs an account of its own, and none could be created ({reason}): "
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
    """Ask, as the servers' account, whether it can enter every folder that leads to the data directory.

    Raises:
        UpError: names the first folder that it cannot enter; nothing was made or changed.
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
    """The data directory's whole path, without links.

    Raises:
        UpError: it starts with a `~` that means nothing here, or its links go in a circle.
    """
    try:
        return data.expanduser().resolve()
    except RuntimeError as error:
        raise UpError(f"--data {data} cannot be followed ({error}): choose another") from error


def open_data_directory(data: Path) -> tuple[Path, Account | None]:
    """Find, or make, the data directory for servers of an account that can reach it.

    Returns:
        Its absolute path, and the account that its servers run as.

    Raises:
        UpError: the directory cannot be made, written to, or reached by that account.
    """
    data = absolute(data)
    account = server_account(data)
    require_reachable(data, account)
    make_data_directory(data)
    return data, account


def make_data_directory(data: Path) -> None:
    """Make the data directory and the folders above it that are missing.

    Raises:
        UpError: it cannot be made or written to.
    """
    try:
        for folder in [*reversed(data.parents), data]:
            if folder.exists():
                continue
            folder.mkdir()
            # Only when root has to let the servers' account pass, and only through: listing stays with the owner.
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        if not data.is_dir():
            raise UpError(f"{data} is not a folder: choose another --data")
        if not os.access(data, os.W_OK | os.X_OK):
            raise UpError(f"the data directory {data} cannot be written to: choose another --data")
    except OSError as error:
        raise UpError(f"cannot make the data directory {data} ({error.strerror}): choose another --data") from error


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the data directory for this process; the kernel lets go of it however the process ends.

    Raises:
        UpError: another process holds it.
    """
    path = data / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UpError(f"cannot open {path} ({error.strerror}): was it made by another user?") from error
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
    """Make a 0700 folder that belongs to the servers' account, or find the one that was made before.

    Raises:
        UpError: what is there is not a folder of that account.
    """
    uid = os.geteuid() if account is None else account.uid
    if not os.path.lexists(path):
        making = path.with_name(path.name + ".making")
        if os.path.lexists(making):
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        if account is not None:
            os.chown(making, account.uid, account.gid, follow_symlinks=False)
        making.rename(path)  # only now does it have its name, so that none is ever found with the wrong owner
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
        wanted = "your own user" if account is None else f"user {account.name!r}"
        raise UpError(
            f"{path} is not a folder of {wanted} (its owner has id {found.st_uid}): "
            "run linewatch as the user who made it, or choose another --data"
        )
    return path


def private_folder(path: Path) -> Path:
    """A 0700 folder of this process' own user."""
    return owned_folder(path, None)


def archive_folder(data: Path) -> Path:
    """Where people may put images to be scored again, unless a setting names other folders; made where it is missing.

    It is theirs: they may replace it by a link, and its permissions are left alone.
    """
    folder = data / "archive"
    folder.mkdir(exist_ok=True)
    return folder


def socket_folder(data: Path, account: Account | None) -> Path:
    """A 0700 folder for the servers' sockets: below the data directory where the path is short and plain enough.

    Otherwise it lies in the temporary folder under a name that follows from the data directory.

    Raises:
        UpError: no folder will do.
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
    """The random password in `path`; made, for its owner's eyes only, where it is missing."""
    if not path.exists():
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
    return path.read_text().strip()
