"""Versions are retired once what they judged has ended; their bundles and the reports of their trainings go."""

import datetime as dt
import os
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.access.tables import audit_events
from core.errors import Code, Refused
from core.models import model_versions, recipes
from core.models.retention_policies import RetentionPolicy
from core.retention import holds, rounds
from core.retention.removals import Removal, Scope
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import bundle_key, training_report_key
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.queued_work import MANIFEST
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions
from tests.fixtures.timed_inspections import insert_final

TODAY = dt.datetime.now(dt.UTC).date()
LATER = TODAY + dt.timedelta(days=200)
SIZE = 1000


def sha256(version: int) -> bytes:
    return bytes([version]) * 32


def put(store: FolderStore, key: str, *, is_fresh: bool = False) -> None:
    store.put(key, bytes(SIZE))
    if not is_fresh:
        os.utime(store.path(key), (0, 0))


@pytest.fixture
def store(engine: Engine, settings: Settings) -> FolderStore:
    """A recipe that keeps inspections for 60 days, with four versions that were active in turn, and their bundles."""
    store = FolderStore(settings.store_url)
    make_versions(engine, 4)
    with engine.begin() as connection:
        recipes.change(connection, RECIPE, actor="test", retention=RetentionPolicy(rows_days=60))
        for version in range(1, 5):
            model_versions.activate(connection, RECIPE, version, actor="test")
            put(store, bundle_key(sha256(version)))
    return store


def removed(engine: Engine, store: FolderStore, today: dt.date = LATER) -> list[Removal]:
    """Apply the rules as of a day; what is removed is what was planned."""
    scope = Scope(engine, today, 30)
    planned = rounds.totals(rounds.plan(scope, store))
    assert rounds.totals(one for step in rounds.steps(scope, store) for one in step) == planned
    return planned


def bundles_in(store: FolderStore) -> list[int]:
    """The versions whose bundle is stored."""
    return [int(file.key.removeprefix("models/")[:2], 16) for file in store.files("models")]


def states(engine: Engine) -> dict[int, str]:
    with engine.begin() as connection:
        return {version.version: version.state for version in model_versions.list_all(connection, RECIPE)}


def test_versions_that_judged_nothing_that_is_kept_are_retired(engine: Engine, store: FolderStore) -> None:
    assert removed(engine, store, TODAY) == []
    assert [(one.kind, one.number, one.bytes) for one in removed(engine, store)] == [("bundles", 2, 2 * SIZE)]
    assert bundles_in(store) == [3, 4]  # a rollback would return to version 3
    assert states(engine) == {1: "retired", 2: "retired", 3: "ready", 4: "ready"}
    assert removed(engine, store) == []
    with engine.begin() as connection:
        events = connection.execute(
            audit_events.select().where(audit_events.c.action == "model.retired").order_by(audit_events.c.id)
        ).all()
    assert [(event.actor, event.subject, event.detail["version"]) for event in events] == [
        ("retention", f"recipe:{RECIPE}", 1),
        ("retention", f"recipe:{RECIPE}", 2),
    ]


def test_a_retired_version_is_not_activated_until_its_bundle_is_there_again(engine: Engine, store: FolderStore) -> None:
    removed(engine, store)
    with engine.begin() as connection:
        assert model_versions.rollback(connection, RECIPE, actor="test").version == 3
        attempts: list[Callable[[], object]] = [
            lambda: model_versions.rollback(connection, RECIPE, actor="test"),
            lambda: model_versions.activate(connection, RECIPE, 1, actor="test"),
        ]
        for attempt in attempts:
            with pytest.raises(Refused, match="its bundle was removed: upload it again") as refused:
                attempt()
            assert refused.value.code is Code.MODEL_NOT_READY
    put(store, bundle_key(sha256(1)), is_fresh=True)
    removed(engine, store)  # it may be being registered; version 4 is no longer in use
    assert bundles_in(store) == [1, 3]
    with engine.begin() as connection:
        version, is_new = model_versions.register(connection, RECIPE, sha256=sha256(1), manifest={}, actor="test")
        assert (version.version, version.state, is_new) == (1, "uploaded", False)
        model_versions.mark_ready(connection, version.id)
        assert model_versions.activate(connection, RECIPE, 1, actor="test").active


def test_a_policy_is_needed(engine: Engine, store: FolderStore) -> None:
    with engine.begin() as connection:
        recipes.change(connection, RECIPE, actor="test", retention=RetentionPolicy(ok_images_days=30))
    assert removed(engine, store) == []
    assert bundles_in(store) == [1, 2, 3, 4]


def test_a_held_inspection_keeps_the_versions_that_may_have_judged_it(engine: Engine, store: FolderStore) -> None:
    with engine.begin() as connection:
        recipe_id, now = recipes.get(connection, RECIPE).id, dt.datetime.now(dt.UTC)
        held, _ = (
            insert_final(connection, recipe_id, now, duration=dt.timedelta(0), lot_id=lot) for lot in ("L-1", "L-2")
        )
        hold = holds.add(connection, lot_id="L-1", part_id=None, reason="recall", actor="test")
    removed(engine, store)
    assert bundles_in(store) == [1, 2, 3, 4]
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id FROM inspections")).scalars().all() == [held]
        holds.release(connection, hold.id, reason="settled", actor="test")
    removed(engine, store)
    assert bundles_in(store) == [3, 4]


def test_a_re_scoring_run_or_a_schedule_keeps_its_version(engine: Engine, store: FolderStore) -> None:
    run_id = make_completed_run(engine, [ResultGroup(None, "ok", "ng", 3)], version=1)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE rescore_runs SET finished_at = CAST(:day AS date) WHERE id = :id"),
            {"day": LATER, "id": run_id},
        )
        recipe_id = recipes.get(connection, RECIPE).id
        connection.execute(
            text("""
                INSERT INTO rescore_schedules (name, recipe_id, cron, time_zone, request, next_at, actor)
                VALUES ('nightly', :recipe_id, '0 0 * * *', 'UTC', '{"model_version": 2}', now(), 'test')
            """),
            {"recipe_id": recipe_id},
        )
    assert removed(engine, store) == []
    assert bundles_in(store) == [1, 2, 3, 4]
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM rescore_schedules"))
    removed(engine, store)
    assert bundles_in(store) == [1, 3, 4]


def test_a_bundle_is_kept_for_another_recipe_and_one_of_no_version_is_deleted(
    engine: Engine, store: FolderStore
) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "other", actor="test")
        model_versions.register(connection, "other", sha256=sha256(1), manifest=MANIFEST, actor="test")
    for version, is_fresh in ((8, True), (9, False)):
        put(store, bundle_key(sha256(version)), is_fresh=is_fresh)
    counted = {(one.recipe_id is None, one.kind): one.number for one in removed(engine, store)}
    assert counted == {(False, "bundles"): 1, (True, "bundles"): 1}
    assert bundles_in(store) == [1, 3, 4, 8]


def test_the_report_of_a_training_goes_with_its_version(engine: Engine, store: FolderStore) -> None:
    with engine.begin() as connection:
        recipe_id = recipes.get(connection, RECIPE).id
        runs: list[UUID] = [
            connection.execute(
                text("""
                    INSERT INTO training_runs (recipe_id, options, compare, actor, state, model_version_id, finished_at)
                    SELECT :recipe_id, '{}', 0, 'test', 'completed', id, now() FROM model_versions
                    WHERE version = :version RETURNING id
                """),
                {"recipe_id": recipe_id, "version": version},
            ).scalar_one()
            for version in (2, 3)
        ]
        connection.execute(
            text("""
                INSERT INTO training_images (run_id, image_sha256, image_day, label)
                VALUES (:run_id, :sha256, '2026-01-02', 'good')
            """),
            {"run_id": runs[0], "sha256": sha256(7)},
        )
    for run_id in runs:
        put(store, training_report_key(run_id))
    kinds = [(one.kind, one.number, one.bytes) for one in removed(engine, store)]
    assert kinds == [("bundles", 2, 2 * SIZE), ("training reports", 1, SIZE)]
    assert [file.key for file in store.files("training-reports")] == [training_report_key(runs[1])]
    with engine.begin() as connection:
        due = connection.execute(text("SELECT day FROM retention_days WHERE lost_rows")).scalars().all()
        assert due == [dt.date(2026, 1, 2)]
