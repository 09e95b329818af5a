"""Locks of referenced rows must not block inserts that refer to them, because that can deadlock."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from core.rescoring import runs
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

NOTHING_DONE = {"completed": 0, "failed": 0, "ok": 0, "ng": 0, "review": 0, "ok_to_ng": 0, "ng_to_ok": 0}
DONE = {**NOTHING_DONE, "completed": 1, "ok": 1}


@pytest.fixture
def run_id(engine: Engine) -> UUID:
    """A run that has just resumed."""
    make_versions(engine)
    run_id = make_completed_run(engine, [ResultGroup("ok", "ok", "ok", 1)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_runs SET state = 'running', total = 100, finished_at = NULL"))
    return run_id


@pytest.mark.parametrize(
    "lock",
    [
        lambda connection, run_id: runs.add_to_counters(connection, run_id, DONE),
        lambda connection, run_id: runs.end_if_done(connection, run_id),
    ],
)
def test_two_workers_write_results_of_one_run_concurrently(
    engine: Engine, run_id: UUID, lock: Callable[[Connection, UUID], Any]
) -> None:
    with engine.begin() as first, engine.begin() as second:
        for connection in (first, second):  # like the inserts of results
            connection.execute(text("SELECT FROM rescore_runs WHERE id = :id FOR KEY SHARE"), {"id": run_id})
        first.execute(text("SET LOCAL lock_timeout = '2s'"))
        lock(first, run_id)


def test_no_lock_is_stronger_than_needed() -> None:
    """`FOR UPDATE` is used only for rows that are deleted, in tables without references to them."""
    root = Path(__file__).parents[3]
    for path in root.glob("core/**/*.py"):
        assert "with_for_update()" not in path.read_text(), path
    files = {
        path.relative_to(root).as_posix() for path in root.glob("core/**/*.py") if "FOR UPDATE" in path.read_text()
    }
    assert {name for name in files if not name.startswith("core/queue/")} <= {
        "core/access/sessions.py",
        "core/delivery/deliveries.py",
        "core/delivery/endpoints.py",
        "core/feed/consumers.py",
        "core/intake/idempotency.py",
        "core/rescoring/runs.py",  # deletes slices
        "core/rescoring/slices.py",
    }
