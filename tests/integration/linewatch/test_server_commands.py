"""`keys`, `migrate` and `doctor` on the configured servers."""

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


def test_doctor_checks_everything_and_prints_no_secret(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    Path(settings.store_url.removeprefix("file://")).mkdir()
    assert run(["doctor", "--json", "--url", NOBODY]) == 0
    output = capsys.readouterr().out
    states = {finding["what"]: finding["state"] for finding in json.loads(output)["findings"]}
    assert states == {"PostgreSQL": "ok", "Redis": "ok", "store": "ok", "torch": "ok", "api": "absent"}
    password = settings.database_url.get_secret_value().partition("linewatch:")[2].partition("@")[0]
    assert password
    assert password not in output


@contextmanager
def broker(answer: bytes) -> Iterator[str]:
    """Run a fake MQTT broker that answers one connection with these bytes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)
            while connection.recv(1024):  # until the client closes
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        yield f"mqtt://me:s3cret@127.0.0.1:{listener.getsockname()[1]}"
        served.result(30)


def mqtt_finding(capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("LINEWATCH_MQTT_URL", url)
    read_settings.cache_clear()
    run(["doctor", "--json", "--url", NOBODY])
    output = capsys.readouterr().out
    assert "s3cret" not in output
    [result] = [finding for finding in json.loads(output)["findings"] if finding["what"] == "MQTT"]
    return result  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "state", "message"),
    [
        (b"\x20\x02\x00\x00", "ok", "accepts connections"),
        (b"\x20\x02\x00\x05", "missing", "it rejects the connection: Not authorized"),
        (b"SSH-2.0\r\n", "missing", "is it a broker?"),
    ],
    ids=["accepted", "not-authorized", "no-broker"],
)
def test_doctor_connects_to_the_mqtt_broker(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: bytes, state: str, message: str
) -> None:
    monkeypatch.setattr("linewatch.server.commands.doctor._BROKER_TIMEOUT", 1.0)
    with broker(answer) as url:
        finding = mqtt_finding(capsys, url, monkeypatch)
    assert (finding["state"], message in finding["found"]) == (state, True), finding


def test_doctor_reports_an_unreachable_broker_and_a_missing_mqtt_client(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (finding["state"], "cannot be reached" in finding["found"]) == ("missing", True)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    finding = mqtt_finding(capsys, "mqtt://127.0.0.1:9", monkeypatch)
    assert (finding["state"], finding["remedy"]) == ("missing", "pip install 'linewatch[mqtt]'")


def test_doctor_lists_each_archive_root(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINEWATCH_ARCHIVE_ROOTS", f"{tmp_path}, {tmp_path}/away, s3://images/lot")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    read_settings.cache_clear()
    assert run(["doctor", "--json", "--url", NOBODY]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    roots = [(finding["state"], finding["found"]) for finding in findings if finding["what"] == "archive"]
    assert [state for state, _ in roots] == ["ok", "missing", "missing"]
    assert f"{tmp_path}/away" in roots[1][1]
    assert "s3://images/lot" in roots[2][1]


def test_doctor_reports_missing_services_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", "postgresql+psycopg://nobody:s3cret@127.0.0.1:9/none")
    monkeypatch.setenv("LINEWATCH_REDIS_URL", "redis://127.0.0.1:9/0")
    read_settings.cache_clear()
    assert run(["doctor", "--json", "--url", NOBODY]) == 1
    output = capsys.readouterr().out
    by_name = {finding["what"]: finding for finding in json.loads(output)["findings"]}
    for name in ("PostgreSQL", "Redis", "store"):
        assert by_name[name]["state"] == "missing"
        assert by_name[name]["remedy"]
    assert "s3cret" not in output


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
