"""`linewatch move-store` and `linewatch doctor` with a bucket."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from core.settings import Settings
from core.settings import settings as read_settings
from core.storage.folder_store import FolderStore
from core.storage.stores import open_store
from linewatch.cli import run
from tests.fixtures.s3_server import S3Server

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _environment(settings: Settings, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_STORE_URL", f"s3://{s3.bucket}/test-{uuid4().hex}")
    monkeypatch.setenv("LINEWATCH_SCRATCH", str(tmp_path / "scratch"))
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def test_a_folder_moves_to_a_bucket(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = FolderStore(settings.store_url)
    old.put_all({"2026/01/02/a": b"a", "models/m.tar": b"bundle"})
    assert run(["move-store"]) == 2
    assert "LINEWATCH_STORE_READ_ALSO" in capsys.readouterr().err

    monkeypatch.setenv("LINEWATCH_STORE_READ_ALSO", settings.store_url)
    read_settings.cache_clear()
    for expected in ("copied 2 files (0.0 MB), 0 were there already", "copied 0 files (0.0 MB), 2 were there already"):
        assert run(["move-store"]) == 0
        assert expected in capsys.readouterr().err

    monkeypatch.delenv("LINEWATCH_STORE_READ_ALSO")
    read_settings.cache_clear()
    assert open_store(read_settings()).read("models/m.tar") == b"bundle"


@pytest.mark.parametrize(("secret", "level"), [(None, "ok"), ("wrong", "error")])
def test_doctor_checks_the_bucket(
    secret: str | None, level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if secret is not None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    run(["doctor", "--json", "--url", NOBODY])
    findings = {found["what"]: found for found in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["store"]["level"] == level
    assert findings["store"]["found"].startswith("s3://")
    assert findings["disk"]["found"].endswith("for the scratch folder of the bucket")


def test_doctor_names_a_move_that_is_not_finished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def findings() -> list[tuple[str, str]]:
        read_settings.cache_clear()
        run(["doctor", "--json", "--url", NOBODY])
        found = json.loads(capsys.readouterr().out)["findings"]
        return [(finding["level"], finding["found"]) for finding in found if finding["what"] == "store"]

    FolderStore(settings.store_url)
    monkeypatch.setenv("LINEWATCH_STORE_READ_ALSO", settings.store_url)
    assert [level for level, _ in findings()] == ["ok", "note"]
    monkeypatch.setenv("LINEWATCH_STORE_READ_ALSO", (tmp_path / "gone").as_uri())
    assert findings() == [("error", f"the folder {tmp_path / 'gone'} does not exist")]
    assert not (tmp_path / "gone").exists()
