"""`linewatch support-bundle`: an archive that works while parts are down, and holds no secret."""

import json
import stat
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core.access import keys
from core.settings import Settings
from core.settings import settings as read_settings
from linewatch.cli import run

NOBODY = "http://127.0.0.1:9"
SECRETS = {
    "database": "d4tab@se",
    "queue": "qu3ue-word",
    "mqtt": 'm"q\\tt-word',
    "aws": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE",
    "webhook": "bm93IGlzIHRoZSB0aW1lIGZvciBhbGwgZ29vZA",
    "bearer": "eyJhbGciOi.J9-token",
    "cookie": "c00kie-of-a-session",
    "receiver": "t0ken-of-the-receiver",
}
LOG = """\
2027-01-31 02:00:00 api | POST /v1/inspections?recipe=ring&since=2027-01-01 202
2027-01-31 02:00:01 api | connecting to postgresql://line:{database}@db.plant.example:5432/parts failed
2027-01-31 02:00:01 io | FATAL: password authentication failed, conninfo "host=db password={database} user=line"
2027-01-31 02:00:02 io | {{"url": "mqtt://line:{mqtt_escaped}@mqtt", "level": "error"}}
2027-01-31 02:00:03 io | POST https://mes.plant.example/hook?t={receiver} 500
2027-01-31 02:00:04 io | AWS_SECRET_ACCESS_KEY={aws} and signature whsec_{webhook}==
2027-01-31 02:00:05 api | headers {{'Authorization': 'Bearer {bearer}', 'cookie': 'linewatch_session={cookie}'}}
2027-01-31 02:00:06 api | the key {api_key} was rejected; the queue's word is {queue}
"""


@pytest.fixture
def planted(settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Secrets by their kind: in the settings, in the database and in the log `log`."""
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_REDIS_URL", f"redis://:{SECRETS['queue']}@127.0.0.1:9/0")
    monkeypatch.setenv("LINEWATCH_MQTT_URL", "mqtt://line:m%22q%5Ctt-word@127.0.0.1:9")
    monkeypatch.setenv("LINEWATCH_STORE_URL", settings.store_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["aws"])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    with engine.begin() as connection:
        _, api_key = keys.create(connection, "station", ["submit"], actor="test")
        connection.execute(
            text("INSERT INTO webhook_endpoints (url, events, secret, state) VALUES (:url, '{inspection.completed}', "
                 ":secret, 'enabled')"),
            {"url": f"https://mes.example/hook?t={SECRETS['receiver']}", "secret": f"whsec_{SECRETS['webhook']}=="},
        )  # fmt: skip
    database = settings.database_url.get_secret_value().partition("linewatch:")[2].partition("@")[0]
    escaped = json.dumps(SECRETS["mqtt"])[1:-1]
    (tmp_path / "log").write_text(LOG.format(**SECRETS, api_key=api_key, mqtt_escaped=escaped))
    read_settings.cache_clear()
    return SECRETS | {"database of the test": database, "api key": api_key, "escaped": escaped}


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        files = {member.name.removeprefix("linewatch-support/"): tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_no_planted_secret_is_in_the_archive(planted: dict[str, str], tmp_path: Path) -> None:
    archive = tmp_path / "support.tar.gz"
    arguments = ["--log", str(tmp_path / "log"), "--url", NOBODY, "--api-key", planted["api key"]]
    assert run(["support-bundle", str(archive), *arguments]) == 0
    files = contents(archive)
    assert files.keys() == {"README.txt", "doctor.json", "versions.json", "counts.json", "logs/log"}
    found = [(kind, name) for kind, secret in planted.items() for name, text_ in files.items() if secret in text_]
    assert found == []
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600

    # What helps is still there.
    log = files["logs/log"].splitlines()
    assert log[0] == LOG.splitlines()[0]
    assert log[1].endswith("connecting to postgresql://line:********@db.plant.example:5432/parts failed")
    assert "https://mes.plant.example/hook?******** 500" in log[4]
    assert len(log) == len(LOG.splitlines())
    document = json.loads(files["doctor.json"])
    levels = {finding["what"]: finding["level"] for finding in document["findings"]}
    assert (document["status"], levels["Redis"], levels["schema"]) == ("error", "error", "ok")
    assert document["settings"]["redis_url"] == "redis://:********@127.0.0.1:9/0"
    counts = json.loads(files["counts.json"])
    assert "inspections_default" in [table["name"] for table in counts["tables"]]
    [endpoint] = counts["system"]["webhook_endpoints"]
    assert endpoint["url"] == "https://mes.example/hook?********"
    assert "sqlalchemy" in [name.lower() for name in json.loads(files["versions.json"])["packages"]]


def test_it_works_while_everything_is_down(
    planted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", f"postgresql+psycopg://me:{SECRETS['queue']}@127.0.0.1:9/none")
    read_settings.cache_clear()
    archive = tmp_path / "support.tar.gz"
    assert run(["support-bundle", str(archive), "--url", NOBODY]) == 0
    files = contents(archive)
    assert "problem" in json.loads(files["counts.json"])
    assert not any(SECRETS["queue"] in content for content in files.values())
    assert run(["support-bundle", str(archive), "--url", NOBODY]) == 2  # it exists
    assert run(["support-bundle", str(tmp_path / "other"), "--url", NOBODY, "--log", str(tmp_path / "missing")]) == 1


def test_only_the_end_of_a_long_log_is_included(
    planted: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.server.doctor.bundle.LOG_BYTES", 300)
    archive = tmp_path / "support.tar.gz"
    assert run(["support-bundle", str(archive), "--log", str(tmp_path / "log"), "--url", NOBODY]) == 0
    log = contents(archive)["logs/log"]
    assert 0 < len(log) <= 300
    assert log.startswith("2027-01-31")
