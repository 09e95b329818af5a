"""Idempotency keys within groups that are committed together, and between groups of two processes."""

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
from core.queue import work
from core.tables import idempotency_keys
from tests.integration.core.queue.test_work import IMAGE, claim, make_recipe, make_version, passed

PROCESSES = 4


@pytest.fixture(autouse=True)
def recipe_id(engine: Engine) -> int:
    with engine.begin() as connection:
        made = make_recipe(connection)
        make_version(connection)
        make_recipe(connection, "empty")
        return made


def keyed(key: str, *, owner: str = "key:a", recipe: str = "ring", **fields: str) -> Submission:
    return Submission([NewInspection(IMAGE, recipe, **fields)]).under(Key(owner, key))  # type: ignore[arg-type]


def accepted(engine: Engine, *submissions: Submission) -> list[Accepted | Refused]:
    with engine.begin() as connection:
        return submission.accept(connection, submissions)


def told(outcome: Accepted | Refused) -> str:
    if isinstance(outcome, Refused):
        return outcome.code
    return "replayed" if outcome.replayed else "new"


def the_ids(outcome: Accepted | Refused) -> list[object]:
    assert isinstance(outcome, Accepted)
    return [one.id for one in outcome.inspections]


def stored(engine: Engine) -> int:
    with engine.begin() as connection:
        return len(inspections.list_page(connection, Filters(), before=None, limit=1000)[0])


def test_a_group_may_hold_everything_at_once(engine: Engine) -> None:
    [first] = accepted(engine, keyed("known"))
    batch = Submission([NewInspection(IMAGE, "ring")] * 2, as_batch=True)
    group = [
        keyed("new"),
        Submission([NewInspection(IMAGE, "ring")]),
        keyed("known"),
        keyed("known", part_id="another"),
        keyed("known", owner="key:b"),
        keyed("refused", recipe="empty"),
        batch.under(Key("key:a", "batch")),
        keyed("new"),
        Submission([], as_batch=True).under(Key("key:a", "open")),
    ]
    outcomes = accepted(engine, *group)
    assert [told(one) for one in outcomes] == [
        "new", "new", "replayed", Code.IDEMPOTENCY_MISMATCH, "new",
        Code.RECIPE_WITHOUT_MODEL, "new", Code.IDEMPOTENCY_IN_FLIGHT, "new",
    ]  # fmt: skip
    assert the_ids(outcomes[2]) == the_ids(first)
    assert stored(engine) == 1 + 3 + 2
    again = accepted(engine, *reversed(group))
    assert [told(one) for one in reversed(again)] == [
        "replayed", "new", "replayed", Code.IDEMPOTENCY_MISMATCH, "replayed",
        Code.RECIPE_WITHOUT_MODEL, "replayed", "replayed", "replayed",
    ]  # fmt: skip
    for number in (0, 6, 8):
        before, after = outcomes[number], again[-1 - number]
        assert isinstance(before, Accepted)
        assert isinstance(after, Accepted)
        assert (after.inspections, after.batch) == (before.inspections, before.batch)


def test_a_refused_request_leaves_its_key_free(engine: Engine) -> None:
    assert told(accepted(engine, keyed("k", recipe="empty"))[0]) == Code.RECIPE_WITHOUT_MODEL
    assert told(accepted(engine, keyed("k"))[0]) == "new"


def test_the_first_answer_stays_whatever_becomes_of_it(engine: Engine, recipe_id: int) -> None:
    batch = Submission([NewInspection(IMAGE, "ring", part_id=name) for name in "cab"], as_batch=True)
    [first] = accepted(engine, batch.under(Key("key:a", "k")))
    assert isinstance(first, Accepted)
    with engine.begin() as connection:
        taken = claim(connection, recipe_id, [one.id for one in first.inspections])
        work.finish(connection, [passed(one) for one in taken[:2]])
        connection.execute(text("UPDATE recipes SET state = 'archived'"))
    [again] = accepted(engine, batch.under(Key("key:a", "k")))
    assert isinstance(again, Accepted)
    assert (again.replayed, again.batch, again.inspections) == (True, first.batch, first.inspections)
    assert [one.part_id for one in again.inspections] == ["c", "a", "b"]


def test_groups_of_several_processes_that_share_keys_neither_double_nor_block(engine: Engine) -> None:
    """Each takes the same keys in an order of its own."""
    names = [f"key-{number:02}" for number in range(40)]
    ready = threading.Barrier(PROCESSES)

    def process(number: int) -> list[Accepted | Refused]:
        own = names[number:] + names[:number]
        ready.wait(30)
        return accepted(engine, *(keyed(name) for name in (own if number % 2 else reversed(own))))

    for _ in range(5):
        with ThreadPoolExecutor(PROCESSES) as pool:
            groups = list(pool.map(process, range(PROCESSES)))
        assert {told(one) for group in groups for one in group} <= {"new", "replayed"}
        assert stored(engine) == len(names)


@pytest.fixture
def old_keys(engine: Engine) -> list[str]:
    names = [f"old-{number}" for number in range(5)]
    accepted(engine, *(keyed(name) for name in names))
    with engine.begin() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = now() - interval '49 hours'"))
    return names


def test_keys_are_removed_in_pieces_once_they_are_old(engine: Engine, old_keys: list[str]) -> None:
    accepted(engine, keyed("young"))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET created_at = now() - interval '47 hours' WHERE key = 'young'")
        )
        pieces = [idempotency.remove_old(connection, at_most=2) for _ in range(4)]
        left = connection.execute(select(idempotency_keys.c.key)).scalars().all()
    assert pieces == [2, 2, 1, 0]
    assert left == ["young"]
    assert told(accepted(engine, keyed(old_keys[0]))[0]) == "new"
