"""Leases: attempts fence off lost workers."""

from sqlalchemy import Engine

from core.inspection import inspections
from core.queue import finishing, leases
from tests.fixtures.queued_work import claim, passed, submit


def test_results_of_a_lost_worker_are_discarded(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1)
        [lost] = claim(connection, recipe_id, [inspection_id], lease=-1)
    with engine.begin() as connection:
        assert leases.reclaim_expired_leases(connection) == 1
        assert finishing.finish(connection, [passed(lost)]).inspections == []  # queued again
        [mine] = claim(connection, recipe_id, [inspection_id])
        assert (mine.attempt, mine.rescues) == (2, 1)
        assert finishing.finish(connection, [passed(lost)]).inspections == []  # claimed by another worker
        assert finishing.finish(connection, [passed(mine, 0.3)]).inspections == [inspection_id]
        assert inspections.get(connection, inspection_id).anomaly_score == 0.3


def test_an_unexpired_lease_is_kept(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1)
        claim(connection, recipe_id, [inspection_id], lease=60)
        assert leases.reclaim_expired_leases(connection) == 0


def test_only_a_held_lease_is_renewed(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1)
        [lost] = claim(connection, recipe_id, [inspection_id], lease=-1)
    with engine.begin() as connection:
        leases.renew(connection, [lost], 60)
        assert leases.reclaim_expired_leases(connection) == 0
        leases.renew(connection, [lost], -1)
    with engine.begin() as connection:
        assert leases.reclaim_expired_leases(connection) == 1
        waiting = inspections.get(connection, inspection_id)
        assert (waiting.status, waiting.started_at, waiting.threshold, waiting.model_version) == ("queued", *[None] * 3)
        [mine] = claim(connection, recipe_id, [inspection_id], lease=-1)
        leases.renew(connection, [lost], 60)  # no longer held by this worker
    with engine.begin() as connection:
        assert mine.attempt == 2
        assert leases.reclaim_expired_leases(connection) == 1
