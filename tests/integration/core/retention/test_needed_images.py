"""What makes stored images needed never overtakes a decision to remove them. Ended re-scoring runs are removed."""

import datetime as dt
from collections.abc import Callable

import pytest
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from core import removal_lock
from core.models import recipes
from core.models.retention_policies import RetentionPolicy
from core.rescoring import runs as rescore_runs
from core.rescoring.requests import RunRequest
from core.retention import holds, rounds
from core.retention.removals import Removal, Scope
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.training_runs import runs as training_runs
from core.training_runs.requests import TrainingRequest
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions


def set_hold(connection: Connection) -> None:
    holds.add(connection, lot_id="L-1", part_id=None, reason="recall", actor="test")


def keep_longer(connection: Connection) -> None:
    recipes.change(connection, RECIPE, actor="test", retention=None)


def score_again(connection: Connection) -> None:
    request = RunRequest.model_validate({"recipe": RECIPE, "model_version": 2, "source": {"where": {}}})
    rescore_runs.create(connection, request, actor="test")


def train(connection: Connection) -> None:
    request = TrainingRequest.model_validate({"inspections": {}})
    run = training_runs.create(connection, RECIPE, request, actor="test")
    training_runs.start(connection, RECIPE, run.id, actor="test")


def set_bit_depth(connection: Connection) -> None:
    recipes.change(connection, RECIPE, actor="test", bit_depth=12)


def has_to_wait(engine: Engine, action: Callable[[Connection], None]) -> bool:
    """Whether a transaction waits for a lock that another one holds."""
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '50ms'"))
            action(connection)
    except OperationalError as error:
        if isinstance(error.orig, LockNotAvailable):
            return True
        raise
    return False


@pytest.mark.parametrize("need", [set_hold, keep_longer, score_again, train])
def test_either_the_need_is_known_to_a_removal_or_it_waits_for_it(
    engine: Engine, need: Callable[[Connection], None]
) -> None:
    make_versions(engine)
    with engine.begin() as deciding:
        removal_lock.take(deciding)
        assert has_to_wait(engine, need)
    with engine.begin() as connection:
        need(connection)
        assert has_to_wait(engine, removal_lock.take)
    assert not has_to_wait(engine, removal_lock.take)


def test_other_changes_of_a_recipe_do_not_wait(engine: Engine) -> None:
    make_versions(engine)
    with engine.begin() as deciding:
        removal_lock.take(deciding)
        assert not has_to_wait(engine, set_bit_depth)


def test_a_run_that_ended_long_ago_is_removed_with_its_results(engine: Engine, settings: Settings) -> None:
    make_versions(engine)
    _, recent = (make_completed_run(engine, [ResultGroup(None, "ok", "ng", 3)]) for _ in range(2))
    today = dt.datetime.now(dt.UTC).date()
    with engine.begin() as connection:
        recipes.change(connection, RECIPE, actor="test", retention=RetentionPolicy(rows_days=60))
        connection.execute(
            text("UPDATE rescore_runs SET finished_at = now() + interval '10 days' WHERE id = :id"), {"id": recent}
        )
    scope, store = Scope(engine, today + dt.timedelta(days=61), 30), FolderStore(settings.store_url)
    planned = rounds.totals(rounds.plan(scope, store))
    assert [one for step in rounds.steps(scope, store) for one in step] == planned
    assert [(one.kind, one.number) for one in planned] == [("re-scoring runs", 1)]
    assert isinstance(planned[0], Removal)
    with engine.begin() as connection:
        left = connection.execute(text("SELECT DISTINCT run_id FROM rescore_results")).scalars().all()
        assert left == [recent]
        assert connection.execute(text("SELECT id FROM rescore_runs")).scalars().all() == [recent]
