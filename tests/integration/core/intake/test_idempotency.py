"""Idempotency keys within one group of submissions, and between groups of several processes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select, text

from core.errors import Code, Refused
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.intake import idempotency, submission
from core.intake.idempotency import Key
from core.intake.submission import Accepted, NewInspection, Submission
from core.queue import finishing
from core.tables import idempotency_keys
from tests.fixtures.queued_work import IMAGE, claim, make_recipe, make_version, passed

PROCESSES = 4


@pytest.fixture(autouse=True)
def recipe_id(engine: Engine) -> int:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        make_version(connection)
        make_recipe(connection, "empty")
        return recipe_id


def keyed(key: str, *, owner: str = "key:a", recipe: str = "ring", **fields: str) -> Submission:
    return Submission([NewInspection(IMAGE, recipe, **fields)]).with_key(Key(owner, key))  # type: ignore[arg-type]


def accept(engine: Engine, *submissions: Submission) -> list[Accepted | Refused]:
    with engine.begin() as connection:
        return submission.accept(connection, submissions)


def result_of(outcome: Accepted | Refused) -> str:
    if isinstance(outcome, Refused):
        return outcome.code
    return "replayed" if outcome.replayed else "new"


def ids_of(outcome: Accepted | Refused) -> list[object]:
    assert isinstance(outcome, Accepted)
    return [inspection.id for inspection in outcome.inspections]


def count_inspections(engine: Engine) -> int:
    with engine.begin() as connection:
        return len(inspections.list_page(connection, Filters(), before=None, limit=1000)[0])


def test_a_group_can_mix_new_replayed_and_refused_requests(engine: Engine) -> None:
    [first] = accept(engine, keyed("known"))
    batch = Submission([NewInspection(IMAGE, "ring")] * 2, as_batch=True)
    group = [
        keyed("new"),
        Submission([NewInspection(IMAGE, "ring")]),
        keyed("known"),
        keyed("known", part_id="another"),
        keyed("known", owner="key:b"),
        keyed("refused", recipe="empty"),
        batch.with_key(Key("key:a", "batch")),
        keyed("new"),
        Submission([], as_batch=True).with_key(Key("key:a", "open")),
    ]
    outcomes = accept(engine, *group)
    assert [result_of(outcome) for outcome in outcomes] == [
        "new", "new", "replayed", Code.IDEMPOTENCY_MISMATCH, "new",
        Code.RECIPE_WITHOUT_MODEL, "new", Code.IDEMPOTENCY_IN_FLIGHT, "new",
    ]  # fmt: skip
    assert ids_of(outcomes[2]) == ids_of(first)
    assert count_inspections(engine) == 1 + 3 + 2
    again = accept(engine, *reversed(group))
    assert [result_of(outcome) for outcome in reversed(again)] == [
        "replayed", "new", "replayed", Code.IDEMPOTENCY_MISMATCH, "replayed",
        Code.RECIPE_WITHOUT_MODEL, "replayed", "replayed", "replayed",
    ]  # fmt: skip
    for number in (0, 6, 8):
        before, after = outcomes[number], again[-1 - number]
        assert isinstance(before, Accepted)
        assert isinstance(after, Accepted)
        assert (after.inspections, after.batch) == (before.inspections, before.batch)


def test_a_refused_request_leaves_its_key_free(engine: Engine) -> None:
    assert result_of(accept(engine, keyed("k", recipe="empty"))[0]) == Code.RECIPE_WITHOUT_MODEL
    assert result_of(accept(engine, keyed("k"))[0]) == "new"


def test_a_replay_returns_the_first_answer_even_after_the_inspections_finished(engine: Engine, recipe_id: int) -> None:
    batch = Submission([NewInspection(IMAGE, "ring", part_id=name) for name in "cab"], as_batch=True)
    [first] = accept(engine, batch.with_key(Key("key:a", "k")))
    assert isinstance(first, Accepted)
    with engine.begin() as connection:
        claims = claim(connection, recipe_id, [inspection.id for inspection in first.inspections])
        finishing.finish(connection, [passed(claimed) for claimed in claims[:2]])
        connection.execute(text("UPDATE recipes SET state = 'archived'"))
    [again] = accept(engine, batch.with_key(Key("key:a", "k")))
    assert isinstance(again, Accepted)
    assert (again.replayed, again.batch, again.inspections) == (True, first.batch, first.inspections)
    assert [inspection.part_id for inspection in again.inspections] == ["c", "a", "b"]


def test_processes_that_share_keys_neither_duplicate_inspections_nor_deadlock(engine: Engine) -> None:
    """Every process inserts the same keys, each in a different order."""
    names = [f"key-{number:02}" for number in range(40)]
    ready = threading.Barrier(PROCESSES)

    def process(number: int) -> list[Accepted | Refused]:
        rotated = names[number:] + names[:number]
        ready.wait(30)
        return accept(engine, *(keyed(name) for name in (rotated if number % 2 else reversed(rotated))))

    for _ in range(5):
        with ThreadPoolExecutor(PROCESSES) as pool:
            groups = list(pool.map(process, range(PROCESSES)))
        assert {result_of(outcome) for group in groups for outcome in group} <= {"new", "replayed"}
        assert count_inspections(engine) == len(names)


@pytest.fixture
def old_keys(engine: Engine) -> list[str]:
    names = [f"old-{number}" for number in range(5)]
    accept(engine, *(keyed(name) for name in names))
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '49 hours'"))
    return names


def test_old_keys_are_deleted_in_chunks(engine: Engine, old_keys: list[str]) -> None:
    accept(engine, keyed("young"))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '47 hours' WHERE key = 'young'")
        )
        chunk_sizes = [idempotency.delete_old_keys(connection, at_most=2) for _ in range(4)]
        remaining = connection.execute(select(idempotency_keys.c.key)).scalars().all()
    assert chunk_sizes == [2, 2, 1, 0]
    assert remaining == ["young"]
    assert result_of(accept(engine, keyed(old_keys[0]))[0]) == "new"
