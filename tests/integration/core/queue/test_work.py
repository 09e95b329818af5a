"""Work in flight: attempts fence off lost workers, and every inspection gets exactly one result."""

import datetime as dt
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from core.errors import Code, Failure, Refused
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.intake import submission
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage, Submission
from core.models import model_versions, recipes, thresholds
from core.queue import batches, claiming, depths, finishing, leases, publishing
from core.queue.claiming import Claim
from core.queue.finishing import Outcome

IMAGE = StoredImage(dt.date(2026, 1, 2), b"\1" * 32, 10, Header("image/png", 4, 3))
MANIFEST = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}


def make_recipe(connection: Connection, name: str = "ring", *, without_model: str = "refuse") -> int:
    return recipes.create(connection, name, without_model=without_model, actor="test").id


def make_version(connection: Connection, name: str = "ring", *, sha256: bytes = b"\2" * 32) -> int:
    version, _ = model_versions.register(connection, name, sha256=sha256, manifest=MANIFEST, actor="test")
    model_versions.mark_ready(connection, version.id)
    return version.id


def submit(connection: Connection, number: int, **fields: object) -> list[UUID]:
    new = [NewInspection(IMAGE, "ring", **fields) for _ in range(number)]  # type: ignore[arg-type]
    [accepted] = submission.accept(connection, [Submission(new)])
    assert isinstance(accepted, Accepted)
    return [inspection.id for inspection in accepted.inspections]


def claim(
    connection: Connection, recipe_id: int, ids: list[UUID], *, at_most: int = 32, lease: float = 60
) -> list[Claim]:
    return claiming.claim(
        connection, recipe_id=recipe_id, ids=ids, priority="live", at_most=at_most, lease_seconds=lease, worker="test"
    )


def passed(claimed: Claim, score: float = 0.25) -> Outcome:
    return Outcome(
        claimed.id, claimed.attempt, "completed", anomaly_score=score, verdict="ok", timings_ms={"score": 1.5}
    )


@pytest.fixture
def recipe_id(engine: Engine) -> int:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        make_version(connection)
        return recipe_id


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


def test_a_claim_waits_for_rows_that_are_being_marked_as_published(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 2)
    with ThreadPoolExecutor(1) as worker, engine.begin() as api:
        publishing.mark_published(api, ids)

        def take() -> list[Claim]:
            with engine.begin() as connection:
                return claim(connection, recipe_id, ids)

        taken = worker.submit(take)
        with pytest.raises(TimeoutError):
            taken.result(0.2)
        api.commit()
        assert {claimed.id for claimed in taken.result(10)} == set(ids)


def test_small_messages_are_filled_up_to_a_minibatch_of_the_same_recipe_and_priority(
    engine: Engine, recipe_id: int
) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 5)
        bulk = submit(connection, 2, priority="bulk")
        taken = claim(connection, recipe_id, [ids[3]], at_most=4)
        assert {claimed.id for claimed in taken} == {ids[3], *ids[:3]}
        assert {claimed.id for claimed in claim(connection, recipe_id, [ids[4]])} == {ids[4]}
        assert claim(connection, recipe_id, []) == []
        assert len(claim(connection, recipe_id, bulk)) == 2


def test_a_released_claim_can_be_taken_again(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        [inspection_id] = submit(connection, 1)
        [mine] = claim(connection, recipe_id, [inspection_id])
        claiming.release(connection, [mine], Failure.MODEL_UNAVAILABLE)
        assert inspections.get(connection, inspection_id).status == "queued"
        [again] = claim(connection, recipe_id, [inspection_id])
        assert (again.attempt, again.rescues) == (2, 0)


def test_a_claim_fixes_the_version_and_the_threshold(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        second = make_version(connection, sha256=b"\3" * 32)
        model_versions.activate(connection, "ring", 2, actor="test")
        version = model_versions.by_id(connection, second)
        common: Any = {"review_threshold": None, "calibration": None, "actor": "test"}
        thresholds.append(connection, version, threshold=0.7, station_id=None, **common)
        thresholds.append(connection, version, threshold=0.9, station_id="st-7", **common)
        thresholds.append(connection, version, threshold=0.6, station_id=None, **common)
        at_st_7 = submit(connection, 1, station_id="st-7")
        at_st_8 = submit(connection, 1, station_id="st-8")
        limits = {
            claimed.id: (claimed.model_version_id, claimed.threshold)
            for claimed in claim(connection, recipe_id, at_st_7 + at_st_8)
        }
    assert limits == {at_st_7[0]: (second, 0.9), at_st_8[0]: (second, 0.6)}


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


def test_a_refused_submission_does_not_affect_the_others_of_its_group(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        make_recipe(connection, "empty")
        make_recipe(connection, "patient", without_model="wait")
        results = submission.accept(
            connection,
            [Submission([NewInspection(IMAGE, name)]) for name in ("ring", "nobody", "empty", "patient", "ring")],
        )
        kinds = [outcome.code if isinstance(outcome, Refused) else outcome.inspections[0].status for outcome in results]
        items, _ = inspections.list_page(connection, Filters(), before=None, limit=10)
    assert kinds == ["queued", Code.RECIPE_UNKNOWN, Code.RECIPE_WITHOUT_MODEL, "queued", "queued"]
    assert [item.recipe for item in items] == ["ring", "patient", "ring"]


def test_inspections_waiting_for_a_model_are_published_once_it_is_ready(engine: Engine) -> None:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection, without_model="wait")
        ids = submit(connection, 1)
        connection.execute(text("UPDATE work SET created_at = now() - interval '1 minute'"))
        assert claim(connection, recipe_id, ids) == []
        assert publishing.take_unpublished(connection, at_most=10) == []
        make_version(connection)
        assert [item.id for item in publishing.take_unpublished(connection, at_most=10)] == ids


def test_unpublished_rows_are_taken_once(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 3)
        assert publishing.take_unpublished(connection, at_most=10) == []  # the api may still publish them
        connection.execute(text("UPDATE work SET created_at = now() - interval '1 minute'"))
    with engine.begin() as first, engine.begin() as second:
        assert len(publishing.take_unpublished(first, at_most=2)) == 2
        assert len(publishing.take_unpublished(second, at_most=2)) == 1  # the other two are locked
    with engine.begin() as connection:
        assert publishing.take_with_lost_message(connection, priority="live", queue_is_empty=True, at_most=10) == []
        connection.execute(text("UPDATE work SET published_at = now() - interval '1 minute'"))
        assert publishing.take_with_lost_message(connection, priority="live", queue_is_empty=False, at_most=10) == []
        assert publishing.take_with_lost_message(connection, priority="bulk", queue_is_empty=True, at_most=10) == []
        overdue = publishing.take_with_lost_message(connection, priority="live", queue_is_empty=True, at_most=10)
        assert {item.id for item in overdue} == set(ids)
        assert publishing.take_with_lost_message(connection, priority="live", queue_is_empty=True, at_most=10) == []


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


def test_a_message_overtaken_by_another_recipe_counts_as_lost(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        other_id = make_recipe(connection, "other")
        make_version(connection, "other")
        [overtaken] = submit(connection, 1)
        [accepted] = submission.accept(connection, [Submission([NewInspection(IMAGE, "other")])])
        assert isinstance(accepted, Accepted)
        connection.execute(
            text("UPDATE work SET published_at = now() - CASE WHEN id = :id THEN interval '60 s' ELSE '30 s' END"),
            {"id": overtaken},
        )
        claim(connection, other_id, [accepted.inspections[0].id], at_most=1)
        overdue = publishing.take_with_lost_message(connection, priority="live", queue_is_empty=False, at_most=10)
    assert [item.id for item in overdue] == [overtaken]


def test_an_overtaken_message_counts_as_lost(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        overtaken, later = submit(connection, 2)
        connection.execute(
            text("UPDATE work SET published_at = now() - CASE WHEN id = :id THEN interval '60 s' ELSE '30 s' END"),
            {"id": overtaken},
        )
        claim(connection, recipe_id, [later], at_most=1)
        overdue = publishing.take_with_lost_message(connection, priority="live", queue_is_empty=False, at_most=10)
    assert [item.id for item in overdue] == [overtaken]


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


def test_a_listing_contains_each_inspection_once_across_both_tables(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 9, lot_id="L-1") + submit(connection, 1, lot_id="L-2")
        finishing.finish(
            connection, [passed(claimed) for claimed in claim(connection, recipe_id, ids[1:9:2], at_most=4)]
        )
        ids_listed, before = [], None
        while True:
            items, before = inspections.list_page(connection, Filters(lot_id="L-1"), before=before, limit=4)
            ids_listed += [item.id for item in items]
            if before is None:
                break
        ok, _ = inspections.list_page(connection, Filters(verdict="ok"), before=None, limit=50)
        queued, _ = inspections.list_page(connection, Filters(status="queued", recipe="ring"), before=None, limit=50)
        now = dt.datetime.now(dt.UTC)
        none, _ = inspections.list_page(connection, Filters(since=now + dt.timedelta(hours=1)), before=None, limit=5)
        every, _ = inspections.list_page(
            connection,
            Filters(since=now - dt.timedelta(hours=1), until=now + dt.timedelta(hours=1)),
            before=None,
            limit=50,
        )
    assert ids_listed == sorted(ids[:9], reverse=True)
    assert (len(ok), len(queued), len(none), len(every)) == (4, 6, 0, 10)
