"""`linewatch submit` of a folder continues where an earlier run ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from linewatch.cli import run
from tests.fixtures.api_process import running_api
from tests.fixtures.part_images import png

MANY = 500


@pytest.fixture
def http(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """An api without workers; the recipe `ring` accepts images, and the cache of the command is empty."""
    with running_api(settings) as client:
        assert client.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201
        monkeypatch.setenv("LINEWATCH_URL", str(client.base_url))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield client


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return folder_of(tmp_path, 5)


def folder_of(tmp_path: Path, number: int) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    kinds = [png(seed) for seed in range(5)]
    for seed in range(number):
        (folder / f"{seed:03}.png").write_bytes(kinds[seed % len(kinds)])
    return folder


def submitted(capsys: pytest.CaptureFixture[str], *arguments: object, expected: int = 0) -> list[str]:
    """Run the command and return the names of the accepted images."""
    assert run(["submit", *map(str, arguments), "--recipe", "ring", "--json"]) == expected
    printed: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [inspection["external_id"] for inspection in printed if inspection["status"] == "queued"]


def stored(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.execute(text("SELECT external_id FROM work ORDER BY external_id")).scalars())


NAMES = [f"{number:03}.png" for number in range(5)]


def test_a_second_run_sends_new_and_changed_images(
    http: httpx.Client, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "none.png").write_text("no image")
    assert submitted(capsys, images, expected=1) == NAMES
    assert submitted(capsys, images, expected=1) == []  # refused images are sent again
    (images / "none.png").write_bytes(png(9))
    (images / "001.png").write_bytes(png(8))
    (images / "more").mkdir()
    (images / "more" / "1.png").write_bytes(png(7))
    assert submitted(capsys, images) == ["001.png", "more/1.png", "none.png"]
    assert submitted(capsys, images, images / "002.png") == ["002.png"]  # given explicitly
    assert submitted(capsys, images, "--lot", "L-1") == [*NAMES, "more/1.png", "none.png"]
    assert submitted(capsys, images, "--again") == [*NAMES, "more/1.png", "none.png"]
    assert run(["submit", str(images), "--recipe", "ring"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "7 images were accepted before" in output.err


def test_images_unknown_to_the_system_are_sent_again(
    http: httpx.Client, images: Path, capsys: pytest.CaptureFixture[str], engine: Engine
) -> None:
    """The URL may belong to another system, or its database may have been restored."""
    submitted(capsys, images)
    (images / "005.png").write_bytes(png(5))
    assert submitted(capsys, images) == ["005.png"]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM work WHERE external_id = '005.png'"))
        connection.execute(text("DELETE FROM batches WHERE total = 1"))
    assert submitted(capsys, images) == ["005.png"]
    assert submitted(capsys, images) == []


def test_without_a_cache_everything_is_sent(
    http: httpx.Client, images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(images / "001.png"))
    assert submitted(capsys, images) == NAMES
    assert submitted(capsys, images) == NAMES


def test_a_killed_run_is_continued_without_duplicate_or_missing_images(
    http: httpx.Client, tmp_path: Path, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    """All commits but the first are blocked until the command is killed: they succeed, but their responses are lost."""
    folder = folder_of(tmp_path, MANY)
    with engine.begin() as connection:
        connection.execute(
            text("""
                CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF (SELECT count(DISTINCT created_at) FROM idempotency_keys) > 1 THEN
                        PERFORM pg_advisory_xact_lock(4711);
                    END IF;
                    RETURN NULL;
                END $$;
                CREATE CONSTRAINT TRIGGER hold_up AFTER INSERT ON idempotency_keys
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold_up();
            """)
        )
    journals = tmp_path / "cache" / "linewatch" / "submissions"

    def entries() -> list[dict[str, Any]]:
        return [json.loads(line) for path in journals.glob("*.jsonl") for line in path.read_text().splitlines()]

    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        command = [sys.executable, "-m", "linewatch.cli", "submit", str(folder), "--recipe", "ring"]
        process = subprocess.Popen(command, env=os.environ)
        deadline = time.monotonic() + 60
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while connection.execute(waiting).scalar_one() == 0 or not any("accepted" in entry for entry in entries()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    answered = {entry["accepted"] for entry in entries() if "accepted" in entry}
    unanswered = [entry["begun"] for entry in entries() if "begun" in entry and entry["begun"] not in answered]
    key_count = text("SELECT count(*) FROM idempotency_keys WHERE key = ANY(:keys)")
    deadline = time.monotonic() + 30
    while True:
        with engine.begin() as connection:
            if connection.execute(key_count, {"keys": unanswered}).scalar_one():
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)

    first = len(stored(engine))
    now = submitted(capsys, folder)
    everything = [f"{number:03}.png" for number in range(MANY)]
    assert stored(engine) == everything
    assert 0 < first < MANY
    assert MANY - first < len(now) < MANY  # sends only images without a received response again
    assert submitted(capsys, folder) == []
