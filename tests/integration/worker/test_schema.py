"""A worker that starts before the database is migrated waits, with one line in its log."""

import threading

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.settings import Settings
from migrations.revisions import newest_revision
from worker import schema


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "POLL_SECONDS", 0.02)


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_it_waits_for_the_migration(engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    set_revision(engine, "0014")
    waiting = threading.Thread(target=schema.wait_until_migrated, args=(settings,))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    set_revision(engine, newest_revision())
    waiting.join(30)
    assert not waiting.is_alive()
    [record] = caplog.records
    assert record.getMessage() == (
        f"waiting to start: The schema has revision 0014; this version needs {newest_revision()}. "
        "Run `linewatch migrate`."
    )


def test_a_schema_of_a_newer_version_is_used(engine: Engine, settings: Settings) -> None:
    set_revision(engine, "of the next version")
    schema.wait_until_migrated(settings)


def test_it_stops_while_it_waits_for_the_database(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    unreachable = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://x@127.0.0.1:1/x")})
    stopping = threading.Event()
    waiting = threading.Thread(target=schema.wait_until_migrated, args=(unreachable, stopping))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    stopping.set()
    waiting.join(30)
    assert not waiting.is_alive()
    [record] = caplog.records
    assert "The database cannot be used" in record.getMessage()
