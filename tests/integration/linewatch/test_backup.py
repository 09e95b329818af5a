"""`linewatch backup` and `linewatch restore` between databases and stores of one's own."""

import datetime as dt
import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from core.backup import restoring
from core.backup.files import Copies, copy_files
from core.backup.folder import BackupFolder
from core.backup.restoring import restore_files
from core.errors import Code
from core.feed import consumers, feed
from core.settings import settings as read_settings
from core.storage.image_store import image_key
from linewatch.cli import run
from linewatch.server.embedded.binaries import client_program
from migrations.__main__ import migrate
from tests.fixtures.feed_reading import cursor_refusal, read_all
from tests.fixtures.installations import DAY, Installation
from tests.fixtures.queued_work import make_recipe, make_version

READER = consumers.Reader("key:mes", is_admin=False)


def test_everything_is_restored_into_an_empty_installation(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    early = source.inspect([b"one", b"two"])
    with source.engine.begin() as connection:
        state = feed.number_entries(connection)
        acknowledged = consumers.acknowledge(connection, state, "mes", "now", reader=READER).cursor
    late = source.inspect([b"three"])
    source.inspect([b"four"], finish=False)
    _, last_cursor = read_all(source.engine)
    rows = save()["rows"]
    undone = source.inspect([b"five"])
    _, undone_cursor = read_all(source.engine)

    target.select()
    assert run(["restore", str(tmp_path / "backups"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == rows
    assert {key: data for key, data in source.files().items() if data != b"five"} == target.files()
    assert target.number("SELECT count(*) FROM work WHERE state = 'queued'") == 1

    # The feed begins a new epoch, and each reader gets the cursor to continue from.
    assert target.number("SELECT count(*) FROM feed_epochs") == source.number("SELECT count(*) FROM feed_epochs") + 1
    assert read_all(target.engine)[0] == early + late
    for cursor, missing in ((str(acknowledged), late), (last_cursor, []), (undone_cursor, [])):
        refusal = cursor_refusal(target.engine, cursor)
        assert refusal.code is Code.CURSOR_EPOCH
        assert read_all(target.engine, refusal.members["resume_after"])[0] == missing
    again = target.inspect([b"five"])
    assert read_all(target.engine, cursor_refusal(target.engine, undone_cursor).members["resume_after"])[0] == again
    assert again != undone
    with target.engine.begin() as connection:
        kept = consumers.find(connection, "mes")
    assert kept is not None
    assert (kept.cursor, kept.owner) == (acknowledged, "key:mes")


def test_a_second_backup_copies_only_new_files_and_each_can_be_restored(
    source: Installation, target: Installation, save: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source.inspect([b"one", b"two"])
    first = save()
    source.inspect([b"two", b"three"])
    second = save()
    assert [(each["files_copied"], each["files"]) for each in (first, second)] == [(3, 3), (1, 4)]

    target.select()
    name = Path(str(first["backup"])).name
    assert run(["restore", str(tmp_path / "backups"), "--name", name]) == 0
    assert target.number("SELECT count(*) FROM inspections") == 2
    assert run(["restore", str(tmp_path / "backups")]) == 1  # it is not empty any more
    assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 0
    assert target.number("SELECT count(*) FROM inspections") == 4
    assert target.files() == source.files()


def test_old_backups_are_deleted_with_the_files_that_only_they_need(
    source: Installation, target: Installation, save: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source.inspect([b"one", b"two"])
    first, second = (Path(str(save()["backup"])).name for _ in range(2))
    (tmp_path / "backups" / "20200101T000000.000Z.incomplete").mkdir()
    with source.engine.begin() as connection:
        connection.execute(text("DELETE FROM images WHERE sha256 = :sha"), {"sha": sha256(b"one").digest()})
    source.inspect([b"three"], day=dt.date(2026, 1, 3))
    saved = save("--keep", "2")
    assert (saved["backups_deleted"], saved["bytes_deleted"]) == ([first], 0)
    saved = save("--keep", "2")
    assert (saved["backups_deleted"], saved["bytes_deleted"]) == ([second], len(b"one"))
    assert len(BackupFolder(tmp_path / "backups").names) == 2
    assert BackupFolder(tmp_path / "backups").incomplete == []
    stored = {path.read_bytes() for path in (tmp_path / "backups/store").rglob("*") if path.is_file()}
    assert stored == {b"two", b"three", b"a bundle"}
    target.select()
    assert run(["restore", str(tmp_path / "backups")]) == 0


def test_a_folder_is_written_by_one_backup_at_a_time(
    source: Installation, save: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save()
    with BackupFolder(tmp_path / "backups").locked(for_writing=False):
        assert run(["backup", str(tmp_path / "backups")]) == 1
    assert "another process uses the backups" in capsys.readouterr().err


@pytest.fixture
def during_the_backup(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """`during_the_backup(act)` lets something happen between the snapshot and the copy of the files."""

    def let(act: Callable[[], None]) -> None:
        def act_and_copy(*arguments: Any) -> None:
            act()
            copy_files(*arguments)

        monkeypatch.setattr("core.backup.saving.copy_files", act_and_copy)

    return let


def test_a_lost_image_is_named_and_one_that_was_removed_with_its_row_is_no_fault(
    source: Installation,
    save: Callable[..., dict[str, Any]],
    during_the_backup: Callable[[Callable[[], None]], None],
) -> None:
    source.inspect([b"lost", b"damaged", b"removed", b"kept"])
    keys = {data: image_key(DAY, sha256(data).digest()) for data in (b"lost", b"damaged", b"removed")}
    source.store.path(keys[b"lost"]).unlink()
    source.store.path(keys[b"damaged"]).write_bytes(b"DAMAGED")

    def remove() -> None:
        with source.engine.begin() as connection:
            connection.execute(text("DELETE FROM images WHERE sha256 = :sha"), {"sha": sha256(b"removed").digest()})
        source.store.path(keys[b"removed"]).unlink()

    during_the_backup(remove)
    saved = save(code=1)
    assert saved["removed"] == [keys[b"removed"]]
    assert sorted(saved["lost"]) == sorted([keys[b"lost"], keys[b"damaged"]])
    assert saved["files"] == 2


def test_images_that_retention_has_removed_are_not_missed(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    during_the_backup: Callable[[Callable[[], None]], None],
    tmp_path: Path,
) -> None:
    source.inspect([b"gone", b"going", b"kept"])
    with source.engine.begin() as connection:
        connection.execute(text("ALTER TABLE images ADD COLUMN IF NOT EXISTS removed_at timestamptz"))

    def remove(data: bytes) -> None:
        with source.engine.begin() as connection:
            mark = text("UPDATE images SET removed_at = now() WHERE sha256 = :sha")
            connection.execute(mark, {"sha": sha256(data).digest()})
        source.store.path(image_key(DAY, sha256(data).digest())).unlink()

    remove(b"gone")
    during_the_backup(lambda: remove(b"going"))
    saved = save()
    assert (saved["removed"], saved["lost"]) == ([image_key(DAY, sha256(b"going").digest())], [])
    target.select()
    assert run(["restore", str(tmp_path / "backups")]) == 0
    assert sorted(target.files().values()) == [b"a bundle", b"kept"]


def test_a_damaged_backup_is_refused_before_the_database_is_touched(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source.inspect([b"one", b"two", b"three"])
    backup = Path(str(save()["backup"]))
    one, two = (tmp_path / "backups/store" / image_key(DAY, sha256(data).digest()) for data in (b"one", b"two"))
    one.write_bytes(b"ONE")
    two.unlink()
    target.select()
    assert run(["restore", str(tmp_path / "backups")]) == 1
    error = capsys.readouterr().err
    assert "2 files are missing or damaged" in error
    assert one.name in error
    assert target.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    assert run(["restore", str(tmp_path / "backups"), "--skip-damaged"]) == 0
    assert sorted(target.files().values()) == [b"a bundle", b"three"]

    for file in (backup / "database.dump", backup / "images.tsv"):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 1
        assert f"{file} is damaged" in capsys.readouterr().err
        file.write_bytes(content)
    (backup / "manifest.json").write_text("{}")
    assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 1
    assert "manifest.json cannot be read" in capsys.readouterr().err
    assert target.number("SELECT count(*) FROM inspections") == 3


def test_an_interrupted_backup_is_marked_and_never_restored(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source.inspect([b"one"])
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "no space left" >&2\nexit 1\n')
    program.chmod(0o755)
    with monkeypatch.context() as broken:
        broken.setattr("linewatch.server.embedded.binaries.client_program", lambda name: program)
        assert run(["backup", str(tmp_path / "backups")]) == 1
    assert "cannot be dumped: no space left" in capsys.readouterr().err
    password = make_url(read_settings().database_url.get_secret_value()).password
    assert password
    assert password not in (tmp_path / "arguments").read_text()  # every user can read a command line
    [unfinished] = BackupFolder(tmp_path / "backups").incomplete
    target.select()
    assert run(["restore", str(tmp_path / "backups")]) == 1
    assert f"{unfinished.name} was never finished" in capsys.readouterr().err

    saved = save()
    assert saved["files_copied"] == 2
    target.select()
    assert run(["restore", str(tmp_path / "backups"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["backup"] == saved["backup"]


def test_a_running_system_and_a_database_in_use_are_not_replaced(
    source: Installation, save: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.inspect([b"one"])
    save()
    assert run(["restore", str(tmp_path / "backups")]) == 1
    assert "--replace" in capsys.readouterr().err
    api = create_engine(source.engine.url, connect_args={"application_name": "linewatch api"}, poolclass=NullPool)
    with api.connect():
        assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 1
    assert "Linewatch is running on this database (api): stop it first" in capsys.readouterr().err
    assert source.number("SELECT count(*) FROM inspections") == 1


def test_what_was_accepted_while_files_were_copied_is_not_deleted(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source.inspect([b"one"])
    save()
    target.select()

    def copy_and_accept(*arguments: Any, **options: Any) -> Copies:
        migrate(target.engine)
        with target.engine.begin() as connection:
            make_recipe(connection)
            make_version(connection)
        target.inspect([b"two"])
        return restore_files(*arguments, **options)

    monkeypatch.setattr(restoring, "restore_files", copy_and_accept)
    assert run(["restore", str(tmp_path / "backups")]) == 1
    assert "the database is not empty" in capsys.readouterr().err
    assert target.number("SELECT count(*) FROM inspections") == 1


def test_a_backup_of_an_older_version_is_upgraded_and_one_of_a_newer_version_refused(
    target: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target.select()
    migrate(target.engine, "0013")
    with target.engine.begin() as connection:
        connection.execute(text("INSERT INTO recipes (name) VALUES ('ring')"))  # as that version has them
    assert run(["backup", str(tmp_path / "backups")]) == 0
    assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 0
    assert target.number("SELECT count(*) FROM training_runs") == 0  # a table of the newest version
    assert target.number("SELECT count(*) FROM recipes") == 1

    with target.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'of_the_future'"))
    assert run(["backup", str(tmp_path / "backups")]) == 0
    assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 1
    assert "upgrade Linewatch first" in capsys.readouterr().err


def test_an_empty_folder_and_an_empty_database_are_named(
    target: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target.select()
    assert run(["backup", str(tmp_path / "backups")]) == 1
    assert "the database is empty" in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    for folder in ("nothing", "missing"):
        assert run(["restore", str(tmp_path / folder)]) == 1
        assert "holds no complete backup" in capsys.readouterr().err


def test_the_programs_come_from_the_path_if_the_wheel_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/sh\n")
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert client_program("pg_dump") != tmp_path / "pg_dump"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert client_program("pg_dump") == tmp_path / "pg_dump"
