"""`keys` and `migrate` on the configured servers."""

import datetime as dt
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from core.access import keys
from core.settings import Settings
from core.settings import settings as read_settings
from linewatch.cli import run

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_STORE_URL", settings.store_url)
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def test_a_key_is_shown_once_and_works_until_it_is_revoked(capsys: pytest.CaptureFixture[str], engine: Engine) -> None:
    assert run(["keys", "create", "line-2", "--scope", "submit"]) == 0
    text = capsys.readouterr().out.strip()
    with engine.begin() as connection:
        stored = keys.find(connection, text)
    assert stored is not None
    assert (stored.name, stored.scopes) == ("line-2", ["submit"])

    assert run(["keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert [key["prefix"] for key in json.loads(listed)] == [stored.prefix]
    assert text not in listed

    assert run(["keys", "revoke", text]) == 0
    with engine.begin() as connection:
        assert keys.find(connection, text) is None
    assert run(["keys", "revoke", "nonsense"]) == 1


def test_a_key_can_have_an_expiry_and_a_rate_limit(capsys: pytest.CaptureFixture[str], engine: Engine) -> None:
    assert run(["keys", "create", "mes", "--expires", "90d", "--rate", "120", "--json"]) == 0
    created = json.loads(capsys.readouterr().out)
    lifetime = dt.datetime.fromisoformat(created["expires_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=89) < lifetime <= dt.timedelta(days=90)
    assert run(["keys", "create", "night", "--expires", "2199-01-31T00:00:00+01:00"]) == 0
    secret = capsys.readouterr().out.strip().split("_", 2)[2]
    with engine.begin() as connection:
        keys.note_use(connection, keys.list_all(connection)[0].id)

    assert run(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert created["expires_at"][:16] in listed
    assert "2199-01-30T23:00" in listed
    assert "120" in listed
    assert secret not in listed
    assert created["key"] not in listed
    assert run(["keys", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["requests_per_minute"], second["requests_per_minute"]) == (120, None)
    assert first["last_used_at"] is not None
    assert second["last_used_at"] is None


@pytest.mark.parametrize(
    ("expires", "code"), [("soon", 2), ("0d", 2), ("2199-01-31T00:00:00", 2), ("2020-01-31T00:00:00Z", 1)]
)
def test_an_expiry_in_the_past_is_refused(capsys: pytest.CaptureFixture[str], expires: str, code: int) -> None:
    assert run(["keys", "create", "--expires", expires]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_migrate_can_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"]) == 0
    assert run(["migrate"]) == 0
    assert capsys.readouterr().out == ""


def test_an_unavailable_database_is_a_one_line_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")
    read_settings.cache_clear()
    for arguments in (["keys", "list"], ["migrate"]):
        assert run(arguments) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("linewatch: ")
        assert output.err.count("\n") == 1
