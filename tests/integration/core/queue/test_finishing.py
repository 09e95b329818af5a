"""Finishing: every inspection gets exactly one result."""

import random
import threading

from sqlalchemy import Engine, text

from core.errors import Failure
from core.inspection import inspections
from core.queue import claiming, depths, finishing, leases
from tests.fixtures.queued_work import claim, passed, submit


def test_a_claimed_inspection_is_finished_once(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1, part_id="SN-1", metadata={"a": [1, None]})
    with engine.begin() as connection:
        [mine] = claim(connection, recipe_id, [inspection_id])
        assert (mine.attempt, mine.threshold, mine.overdue) == (1, 0.5, False)
        assert claim(connection, recipe_id, [inspection_id]) == []
    with engine.begin() as connection:
        assert finishing.finish(connection, [passed(mine)]).inspections == [inspection_id]
        assert finishing.finish(connection, [passed(mine, 0.9)]).inspections == []
    with engine.begin() as connection:
        result = inspections.get(connection, inspection_id)
    assert (result.status, result.anomaly_score, result.verdict, result.attempt) == ("completed", 0.25, "ok", 1)
    assert (result.part_id, result.metadata) == ("SN-1", {"a": [1, None]})
    assert result.timings_ms["score"] == 1.5
    assert result.timings_ms["total"] > 0


def test_unclaimed_inspections_fail_at_their_deadline(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        late, unloadable, patient = (submit(connection, 1, deadline_ms=ms)[0] for ms in (1, 1, 60_000))
        connection.execute(
            text("UPDATE work SET deadline_at = now() - interval '1 s' WHERE id <> :id"), {"id": patient}
        )
        claiming.release(connection, claim(connection, recipe_id, [unloadable], at_most=1), Failure.MODEL_UNAVAILABLE)
        finished = finishing.fail_overdue(connection)
        assert set(finished.inspections) == {late, unloadable}
        assert inspections.get(connection, late).error_code == Failure.DEADLINE_EXCEEDED
        assert inspections.get(connection, unloadable).error_code == Failure.MODEL_UNAVAILABLE
        assert inspections.get(connection, patient).status == "queued"


def test_each_inspection_gets_one_result_despite_expired_leases_and_duplicate_messages(
    engine: Engine, recipe_id: int
) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 300)
    remaining = threading.Event()

    def run_worker(seed: int) -> None:
        chance = random.Random(seed)
        while not remaining.is_set():
            lease = -1 if chance.random() < 0.3 else 60  # some leases expire at once
            with engine.begin() as connection:
                mine = claim(connection, recipe_id, chance.sample(ids, 8), at_most=16, lease=lease)
            if chance.random() < 0.8 or lease > 0:
                with engine.begin() as connection:
                    finishing.finish(connection, [passed(claimed, chance.random()) for claimed in mine])

    threads = [threading.Thread(target=run_worker, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            with engine.begin() as connection:
                leases.reclaim_expired_leases(connection)
                if depths.total(connection) == 0:
                    break
    finally:
        remaining.set()
        for thread in threads:
            thread.join()
    with engine.begin() as connection:
        inspections_by_id = inspections.by_ids(connection, ids)
        rows = connection.execute(text("SELECT count(*), count(DISTINCT id) FROM inspections")).one()
    assert {inspection.status for inspection in inspections_by_id.values()} == {"completed"}
    assert tuple(rows) == (300, 300)
