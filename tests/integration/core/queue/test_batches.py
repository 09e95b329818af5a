"""Batches: counters, states, closing and cancelling."""

from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from core.errors import Code, Failure, Refused
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.queue import batches, depths, finishing
from core.queue.finishing import Outcome
from tests.fixtures.queued_work import IMAGE, claim, passed, submit


def test_a_batch_counts_verdicts_and_completes_with_its_last_inspection(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        new = [NewInspection(IMAGE, "ring") for _ in range(4)]
        [accepted] = submission.accept(connection, [Submission(new, as_batch=True)])
        assert isinstance(accepted, Accepted)
        assert accepted.batch_id is not None
        batch_id, ids = accepted.batch_id, [inspection.id for inspection in accepted.inspections]
        taken = claim(connection, recipe_id, ids)
        assert (
            batches.get(connection, batch_id).counts | {"total": 4, "running": 4}
            == batches.get(connection, batch_id).counts
        )
        outcomes = [
            passed(taken[0]),
            Outcome(taken[1].id, 1, "completed", anomaly_score=0.9, verdict="ng"),
            Outcome(taken[2].id, 1, "failed", error_code=Failure.IMAGE_UNDECODABLE, error_detail="broken"),
        ]
        assert finishing.finish(connection, outcomes).batches == []
        assert finishing.finish(connection, [passed(taken[3])]).batches == [batch_id]
        batch = batches.get(connection, batch_id)
    assert batch.state == "completed"
    assert batch.counts == {
        "total": 4, "queued": 0, "running": 0,
        "completed": 3, "failed": 1, "cancelled": 0,
        "ok": 2, "ng": 1, "review": 0,
    }  # fmt: skip


def test_an_open_batch_is_filled_and_refuses_images_once_closed(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        batch_id = connection.execute(text("SELECT uuidv7()")).scalar_one()
        batches.create(connection, batch_id, closed=False)
        ids = submit(connection, 2, batch_id=batch_id)
        finishing.finish(connection, [passed(claimed) for claimed in claim(connection, recipe_id, ids)])
        assert batches.get(connection, batch_id).state == "open"
        assert batches.close(connection, batch_id)
        assert batches.get(connection, batch_id).state == "completed"
        [refused] = submission.accept(connection, [Submission([NewInspection(IMAGE, "ring", batch_id=batch_id)])])
    assert isinstance(refused, Refused)
    assert refused.code is Code.INVALID_TRANSITION


def test_cancelling_a_batch_keeps_final_inspections_and_cancels_the_others(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [accepted] = submission.accept(
            connection, [Submission([NewInspection(IMAGE, "ring") for _ in range(3)], as_batch=True)]
        )
        assert isinstance(accepted, Accepted)
        assert accepted.batch_id is not None
        first, second, _ = (inspection.id for inspection in accepted.inspections)
        [finished] = claim(connection, recipe_id, [first], at_most=1)
        finishing.finish(connection, [passed(finished)])
        [running] = claim(connection, recipe_id, [second], at_most=1)
        assert len(finishing.cancel_batch(connection, accepted.batch_id).inspections) == 2
        assert finishing.finish(connection, [passed(running)]).inspections == []
        batch = batches.get(connection, accepted.batch_id)
        assert (batch.state, batch.counts["ok"], batch.counts["cancelled"]) == ("cancelled", 1, 2)
        assert finishing.cancel_batch(connection, accepted.batch_id).inspections == []


def test_an_image_added_during_a_cancellation_is_cancelled_too(
    engine: Engine, recipe_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        batch_id = connection.execute(text("SELECT uuidv7()")).scalar_one()
        batches.create(connection, batch_id, closed=False)
        submit(connection, 2, batch_id=batch_id)
    mark_cancelled = batches.mark_cancelled
    joined: list[UUID] = []

    def join_first(connection: Connection, batch_id: UUID) -> None:
        if not joined:
            with engine.begin() as other:
                joined.extend(submit(other, 1, batch_id=batch_id))
        mark_cancelled(connection, batch_id)

    monkeypatch.setattr(batches, "mark_cancelled", join_first)
    with engine.begin() as connection:
        assert len(finishing.cancel_batch(connection, batch_id).inspections) == 3
        batch = batches.get(connection, batch_id)
        assert (batch.state, batch.counts["cancelled"], batch.counts["total"]) == ("cancelled", 3, 3)
        assert depths.total(connection) == 0
