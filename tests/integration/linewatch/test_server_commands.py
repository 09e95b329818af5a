"""`keys`, `migrate` and `doctor`, which work on the servers of the settings."""

import datetime as dt
import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

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
        found = keys.find(connection, text)
    assert found is not None
    assert (found.name, found.scopes) == ("line-2", ["submit"])

    assert run(["keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert [one["prefix"] for one in json.loads(listed)] == [found.prefix]
    assert text not in listed

    assert run(["keys", "revoke", text]) == 0
    with engine.begin() as connection:
        assert keys.find(connection, text) is None
    assert run(["keys", "revoke", "nonsense"]) == 1


def test_a_key_may_be_made_for_a_while_and_for_so_many_requests(
    capsys: pytest.CaptureFixture[str], engine: Engine
) -> None:
    assert run(["keys", "create", "mes", "--expires", "90d", "--rate", "120", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    left = dt.datetime.fromisoformat(made["expires_at"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=89) < left <= dt.timedelta(days=90)
    assert run(["keys", "create", "night", "--expires", "2199-01-31T00:00:00+01:00"]) == 0
    secret = capsys.readouterr().out.strip().split("_", 2)[2]
    with engine.begin() as connection:
        keys.note_use(connection, keys.list_all(connection)[0].id)

    assert run(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    assert made["expires_at"][:16] in listed
    assert "2199-01-30T23:00" in listed
    assert "120" in listed
    assert secret not in listed
    assert made["key"] not in listed
    assert run(["keys", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["requests_per_minute"], second["requests_per_minute"]) == (120, None)
    assert first["last_used_at"] is not None
    assert second["last_used_at"] is None


@pytest.mark.parametrize(
    ("expires", "code"), [("soon", 2), ("0d", 2), ("2199-01-31T00:00:00", 2), ("2020-01-31T00:00:00Z", 1)]
)
def test_a_key_that_expires_at_no_moment_to_come_is_not_made(
    capsys: pytest.CaptureFixture[str], expires: str, code: int
) -> None:
    assert run(["keys", "create", "--expires", expires]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_doctor_finds_everything_and_tells_no_secret(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    Path(settings.store_url.removeprefix("file://")).mkdir()
    assert run(["doctor", "--json", "--url", NOBODY]) == 0
    told = capsys.readouterr().out
    states = {one["what"]: one["state"] for one in json.loads(told)["findings"]}
    assert states == {"PostgreSQL": "ok", "Redis": "ok", "store": "ok", "torch": "ok", "api": "absent"}
    password = settings.database_url.get_secret_value().partition("linewatch:")[2].partition("@")[0]
    assert password
    assert password not in told


@contextmanager
def broker(answer: bytes) -> Iterator[str]:
    """Plays an MQTT broker that answers one connection with this."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)
            while connection.recv(1024):  # until it is left
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        yield f"mqtt://me:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        served.result(30)


def mqtt_finding(capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("LINEWATCH_MQTT_URL", url)
    read_settings.cache_clear()
    run(["doctor", "--json", "--url", NOBODY])
    told = capsys.readouterr().out
    assert "s3cret" not in told
    [found] = [one for one in json.loads(told)["findings"] if one["what"] == "MQTT"]
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        (b"\x20\x02\x00\x00", "ok", "takes connections"),
        (b"\x20\x02\x00\x05", "missing", "it rejects the connection: Not authorized"),
        (b"SSH-2.0\r\n", "missing", "is it a broker?"),
    ],
    ids=["accepted", "not-authorized", "no-broker"],
)
def test_doctor_tries_the_broker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bytes, state: str, said: str
) -> None:
    monkeypatch.setattr("linewatch.server.commands.doctor._BROKER_SECONDS", 1.0)
    with broker(answer) as url:
        found = mqtt_finding(capsys, url, monkeypatch)
    assert (found["state"], said in found["found"]) == (state, True), found


def test_doctor_says_what_mqtt_lacks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (found["state"], "cannot be reached" in found["found"]) == ("missing", True)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    found = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (found["state"], found["remedy"]) == ("missing", "pip install 'linewatch[mqtt]'")


def test_doctor_lists_each_root_of_archives(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINEWATCH_ARCHIVE_ROOTS", f"{tmp_path}, {tmp_path}/away, s3://images/lot")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    read_settings.cache_clear()
    assert run(["doctor", "--json", "--url", NOBODY]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = [(one["state"], one["found"]) for one in findings if one["what"] == "archive"]
    assert [state for state, _ in found] == ["ok", "missing", "missing"]
    assert f"{tmp_path}/away" in found[1][1]
    assert "s3://images/lot" in found[2][1]


def test_doctor_says_what_is_missing_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", "postgresql+psycopg://nobody:s3cret@127.0.0.1:9/none")
    monkeypatch.setenv("LINEWATCH_REDIS_URL", "redis://127.0.0.1:9/0")
    read_settings.cache_clear()
    assert run(["doctor", "--json", "--url", NOBODY]) == 1
    told = capsys.readouterr().out
    found = {one["what"]: one for one in json.loads(told)["findings"]}
    for what in ("PostgreSQL", "Redis", "store"):
        assert found[what]["state"] == "missing"
        assert found[what]["remedy"]
    assert "s3cret" not in told


def test_migrate_may_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"]) == 0
    assert run(["migrate"]) == 0
    assert capsys.readouterr().out == ""


def test_a_database_that_is_away_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none")
    read_settings.cache_clear()
    for arguments in (["keys", "list"], ["migrate"]):
        assert run(arguments) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("linewatch: ")
        assert told.err.count("\n") == 1
