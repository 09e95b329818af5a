"""`linewatch retention`."""

import datetime as dt
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from core.models.retention_policies import RetentionPolicy
from core.retention import rows
from core.settings import Settings
from core.settings import settings as read_settings
from core.storage.folder_store import FolderStore
from linewatch.cli import run
from tests.fixtures.retained_plant import BYTES, Part, Plant, build, remaining

DAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=40)
PLANT = Plant(
    [RetentionPolicy(ok_images_days=30), None], [Part(0, DAY, 0, "ok"), Part(0, DAY, 1, "ng"), Part(1, DAY, 2, "ok")]
)


@pytest.fixture(autouse=True)
def _environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LINEWATCH_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("LINEWATCH_STORE_URL", settings.store_url)
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def test_a_dry_run_says_what_would_go_and_the_run_removes_it(
    settings: Settings, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FolderStore(settings.store_url)
    build(engine, store, PLANT)
    removed = [{"recipe": "r0", "kind": "images", "number": 1, "bytes": BYTES}]
    for arguments, left in ((["--dry-run"], 3), ([], 2)):
        assert run(["retention", "--json", *arguments]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == {"dry_run": bool(arguments), "removed": removed, "bytes": BYTES}
        assert len(remaining(engine, store, PLANT).files) == left
    assert run(["retention"]) == 0
    assert "Nothing has to be removed now." in capsys.readouterr().err


def test_the_table_shows_recipe_kind_and_bytes(
    settings: Settings, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    build(engine, FolderStore(settings.store_url), PLANT)
    assert run(["retention", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert ["r0", "images", "1", "1000"] in [line.split() for line in printed.out.splitlines()]
    assert "This would free 0.0 MB." in printed.err


def test_more_inspections_than_a_round_removes_and_held_ones_before_them(
    settings: Settings, engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(rows, "PIECES", 1)
    ended = DAY - dt.timedelta(days=60)
    held = [Part(0, ended, number, "ok", lot="L-1") for number in range(3)]
    others = [Part(0, ended, number, "ok") for number in range(3, 8)]
    of_another_recipe = [Part(1, ended, 8, "ok")]  # so that the month is not removed as a whole
    plant = Plant(
        [RetentionPolicy(rows_days=10), None], [*held, *others, *of_another_recipe], held_lots=frozenset({"L-1"})
    )
    build(engine, FolderStore(settings.store_url), plant)
    for arguments in (["--dry-run"], []):
        assert run(["retention", "--json", *arguments]) == 0
        removed = json.loads(capsys.readouterr().out)["removed"]
        assert {"recipe": "r0", "kind": "inspections", "number": 5, "bytes": 0} in removed
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM inspections")).scalar_one() == 4
