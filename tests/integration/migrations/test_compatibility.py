"""A database that a newer release has migrated, with a release that works with it and one that does not."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from core.settings import settings as read_settings
from linewatch.cli import run
from migrations import compatibility
from migrations.__main__ import main, migrate
from tests.fixtures.later_migrations import later_release

STATEMENT = "ALTER TABLE work ADD COLUMN of_a_later_release text"
RELEASE = version("linewatch")


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def revision(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def test_a_migration_records_which_releases_work_with_it(engine: Engine, tmp_path: Path) -> None:
    with engine.connect() as connection:
        origin = compatibility.read(connection)
    assert origin == compatibility.SchemaOrigin(revision(engine), RELEASE, compatibility.OLDEST_RELEASE)
    with later_release(tmp_path / "later", STATEMENT, release="90.1.0", oldest_release="90.0.0"):
        assert migrate(engine) == f"The database was upgraded from schema {origin.revision} to schema later."
        assert migrate(engine) == "The database is up to date."
    with engine.connect() as connection:
        origin = compatibility.read(connection)
    assert origin == compatibility.SchemaOrigin("later", "90.1.0", "90.0.0")
    assert [origin.allows(each) for each in ("9.9.9", "89.9.9", "90.0.0", "90.10.0")] == [False, False, True, True]


def test_an_interrupted_migration_is_recorded_by_the_next(engine: Engine, tmp_path: Path) -> None:
    with later_release(tmp_path / "later", STATEMENT):
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(text("COMMENT ON TABLE alembic_version IS NULL"))
        assert migrate(engine) == "The database is up to date."
    with engine.connect() as connection:
        origin = compatibility.read(connection)
    assert origin is not None
    assert origin.revision == "later"


def test_the_release_before_leaves_the_schema_as_it_is(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with later_release(tmp_path / "later", STATEMENT, oldest_release=RELEASE):
        migrate(engine)
    sentence = f"Linewatch 90.0.0 has migrated the database. Linewatch {RELEASE} works with its schema.\n"
    assert (main(), capsys.readouterr().out) == (0, sentence)  # as `linewatch up`, Compose and Kubernetes do
    assert (run(["migrate"]), capsys.readouterr().err) == (0, sentence)
    assert revision(engine) == "later"


def test_a_release_that_is_too_old_says_what_to_install(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with later_release(tmp_path / "later", STATEMENT, release="90.1.0", oldest_release="90.0.0"):
        migrate(engine)
    for migrate_again, line in (
        (main, "linewatch: the database cannot be migrated: "),
        (lambda: run(["migrate"]), "linewatch: "),
    ):
        assert migrate_again() == 1
        assert capsys.readouterr().err == (
            f"{line}Linewatch 90.1.0 has written the database, which works with 90.0.0 and newer, "
            f"and this is {RELEASE}: install Linewatch 90.1.0 or newer, or restore a backup from before the upgrade\n"
        )
    assert revision(engine) == "later"


def test_an_unknown_schema_without_a_record_is_refused(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'unknown'"))
    assert main() == 1
    assert capsys.readouterr().err == (
        "linewatch: the database cannot be migrated: a newer version of Linewatch has written the database "
        "(schema unknown): install that, or the newest\n"
    )
