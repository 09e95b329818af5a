"""Claims of training runs: in turn, fenced by the attempt, and released when a lease expires."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from core.models import recipes
from core.settings import Settings
from core.training_runs import claims, runs
from core.training_runs.claims import MAX_NOTES, MAX_RESCUES, Claim, Progress
from core.training_runs.requests import InspectionSource, TrainingRequest

RECIPE = "ring"


@pytest.fixture
def connection(engine: Engine, settings: Settings) -> Iterator[Connection]:
    """A connection that commits each statement."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        recipes.create(connection, RECIPE, actor="test")
        yield connection


def queued(connection: Connection) -> UUID:
    request = TrainingRequest(inspections=InspectionSource())
    run = runs.create(connection, RECIPE, request, actor="test")
    return runs.start(connection, RECIPE, run.id, actor="test").id


def claim(connection: Connection) -> Claim | None:
    return claims.claim(connection, worker="test", lease_seconds=60)


def claimed(connection: Connection) -> Claim:
    found = claim(connection)
    assert found is not None
    return found


def state(connection: Connection, run_id: UUID) -> tuple[str, str | None]:
    run = runs.get(connection, RECIPE, run_id)
    return run.state, run.reason


def expire(connection: Connection, lease: str = "now() - interval '1 second'") -> None:
    connection.execute(text(f"UPDATE training_runs SET lease_until = {lease} WHERE lease_until IS NOT NULL"))  # noqa: S608


def test_the_run_that_has_waited_longest_is_claimed_first(connection: Connection) -> None:
    first, second = queued(connection), queued(connection)
    assert claims.count_queued(connection) == 2
    assert [claimed(connection), claimed(connection)] == [Claim(first, 1), Claim(second, 1)]
    assert claim(connection) is None
    claims.release(connection, Claim(second, 1))
    third = queued(connection)
    assert [claimed(connection), claimed(connection)] == [Claim(second, 2), Claim(third, 1)]


def test_a_lost_claim_changes_nothing(connection: Connection) -> None:
    run_id = queued(connection)
    old = claimed(connection)
    expire(connection)
    assert claims.reclaim_expired_leases(connection).queued == 1
    new = claimed(connection)
    assert not claims.renew(connection, old, lease_seconds=60, progress=Progress("training", 1, 2))
    assert not claims.fail(connection, old, "late")
    assert not claims.complete(connection, old, 1, {})
    assert not claims.end_crashed(connection, old, "late")
    claims.release(connection, old)
    assert (state(connection, run_id), runs.get(connection, RECIPE, run_id).stage) == (("running", None), None)
    runs.cancel(connection, RECIPE, run_id, actor="test")
    assert not claims.renew(connection, new, lease_seconds=60)
    assert not claims.complete(connection, new, 1, {})
    assert state(connection, run_id) == ("cancelled", None)


@pytest.mark.parametrize("lease", ["now() - interval '1 second'", "now() + interval '1 day'"], ids=["past", "far"])
def test_an_expired_lease_queues_the_run_and_in_the_end_fails_it(connection: Connection, lease: str) -> None:
    run_id = queued(connection)
    for attempt in range(1, MAX_RESCUES + 1):
        assert claims.reclaim_expired_leases(connection) == claims.Reclaimed(0, [])
        held = claimed(connection)
        assert held.attempt == attempt
        assert claims.renew(connection, held, lease_seconds=60, progress=Progress("training", 1, 2))
        expire(connection, lease)
        reclaimed = claims.reclaim_expired_leases(connection)
        assert reclaimed == claims.Reclaimed(*((1, []) if attempt < MAX_RESCUES else (0, [run_id])))
    outcome, reason = state(connection, run_id)
    assert outcome == "failed"
    assert reason is not None
    assert reason.startswith("Its worker ended 5 times without a result, the last time in the stage training: ")
    action = text("SELECT action FROM audit_events WHERE subject = :subject ORDER BY id DESC LIMIT 1")
    assert connection.execute(action, {"subject": f"training_run:{run_id}"}).scalar() == "training_run.failed"


def test_the_time_of_a_stage_counts_from_its_first_progress(connection: Connection) -> None:
    run_id = queued(connection)
    held = claimed(connection)
    renew = text("UPDATE training_runs SET stage_started_at = stage_started_at - interval '10 seconds'")
    for done in (1, 2):
        assert claims.renew(connection, held, lease_seconds=60, progress=Progress("reading", done, 4))
        connection.execute(renew)
    run = runs.get(connection, RECIPE, run_id)
    assert run.stage_seconds == pytest.approx(20, abs=5)
    assert run.seconds_left == pytest.approx(20, abs=5)
    assert claims.renew(connection, held, lease_seconds=60, progress=Progress("training", 0, 4))
    run = runs.get(connection, RECIPE, run_id)
    assert (run.stage, run.seconds_left) == ("training", None)
    assert run.stage_seconds == pytest.approx(0, abs=5)


def test_notes_are_bounded(connection: Connection) -> None:
    run_id = queued(connection)
    notes = ["\ud800 long" * 1000] * (MAX_NOTES + 5)
    assert claims.renew(connection, claimed(connection), lease_seconds=60, progress=Progress("x", 0, 1, notes))
    stored = runs.get(connection, RECIPE, run_id).notes
    assert len(stored) == MAX_NOTES
    assert len(stored[0]) == 1000
