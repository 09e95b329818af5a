"""A day that was checked is listed again only if something of it may have ended."""

import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine

from core.models import recipes
from core.models.retention_policies import RetentionPolicy
from core.retention import holds, rounds
from core.retention.removals import Scope
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import StoredFile, day_folder
from tests.fixtures.retained_plant import FEED_DAYS, TODAY, Part, Plant, build, expected, remaining

DAYS = [TODAY - dt.timedelta(days=age) for age in (10, 40)]
PLANT = Plant(
    [RetentionPolicy(ok_images_days=30), None],
    [Part(0, DAYS[0], 0, "ok"), Part(0, DAYS[1], 1, "ok"), Part(0, DAYS[1], 2, "ng", lot="L-1")],
)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed."""
    folders: list[str] = []
    files = FolderStore.files

    def note(store: FolderStore, prefix: str = "") -> Iterator[StoredFile]:
        folders.append(prefix)
        return files(store, prefix)

    monkeypatch.setattr(FolderStore, "files", note)
    return folders


def days_of(folders: list[str]) -> set[dt.date]:
    return {day for day in DAYS if any(day_folder(day) in folder for folder in folders)}


def run_round(scope: Scope, store: FolderStore) -> None:
    for _ in rounds.steps(scope, store):
        pass


def set_hold(connection: Connection) -> None:
    holds.add(connection, lot_id="L-1", part_id=None, reason="recall", actor="test")


def keep_longer(connection: Connection) -> None:
    recipes.change(connection, "r1", actor="test", retention=RetentionPolicy(ok_images_days=100))


@pytest.mark.parametrize("change", [set_hold, keep_longer])
def test_a_change_that_ends_nothing_lists_nothing(
    engine: Engine, settings: Settings, listed: list[str], change: Callable[[Connection], None]
) -> None:
    store, scope = FolderStore(settings.store_url), Scope(engine, TODAY, FEED_DAYS)
    build(engine, store, PLANT)
    run_round(scope, store)
    assert days_of(listed) == set(DAYS)
    assert remaining(engine, store, PLANT) == expected(PLANT)
    listed.clear()
    with engine.begin() as connection:
        change(connection)
    run_round(scope, store)
    assert days_of(listed) == set()
    assert remaining(engine, store, PLANT) == expected(PLANT)


def test_a_change_lists_the_days_of_what_it_ends(engine: Engine, settings: Settings, listed: list[str]) -> None:
    store, scope = FolderStore(settings.store_url), Scope(engine, TODAY, FEED_DAYS)
    build(engine, store, PLANT)
    run_round(scope, store)
    listed.clear()
    with engine.begin() as connection:
        recipes.change(connection, "r0", actor="test", retention=RetentionPolicy(ok_images_days=5))
    run_round(scope, store)
    assert days_of(listed) == {DAYS[0]}
    assert not any(day_folder(DAYS[0]) in key for key in remaining(engine, store, PLANT).files)


def test_a_day_is_listed_again_after_a_kill(engine: Engine, settings: Settings, listed: list[str]) -> None:
    """Also if the policies have changed meanwhile: its images are marked, but their files may be left."""
    store, scope = FolderStore(settings.store_url), Scope(engine, TODAY, FEED_DAYS)
    build(engine, store, PLANT)
    for step in rounds.steps(scope, store):
        if any(one.kind == "images" for one in step):
            break  # marked and committed
    with engine.begin() as connection:
        keep_longer(connection)
    run_round(scope, store)
    assert remaining(engine, store, PLANT) == expected(PLANT)
