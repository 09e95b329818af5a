"""Claims: what a worker gets for a message, and what the claim fixes."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from core.errors import Failure
from core.inspection import inspections
from core.models import model_versions, thresholds
from core.queue import claiming, publishing
from core.queue.claiming import Claim
from tests.fixtures.queued_work import claim, make_version, submit


def test_a_claim_waits_for_rows_that_are_being_marked_as_unpublished(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 2)
    with ThreadPoolExecutor(1) as worker, engine.begin() as api:
        publishing.mark_unpublished(api, ids)

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
