"""Publishing: rows that no message names are found, each once."""

from sqlalchemy import Engine, text

from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.queue import publishing
from tests.fixtures.queued_work import IMAGE, claim, make_recipe, make_version, submit


def test_inspections_waiting_for_a_model_are_published_once_it_is_ready(engine: Engine) -> None:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection, without_model="wait")
        ids = submit(connection, 1)
        publishing.mark_unpublished(connection, ids)
        connection.execute(text("UPDATE work SET created_at = now() - interval '1 minute'"))
        assert claim(connection, recipe_id, ids) == []
        assert publishing.take_unpublished(connection, at_most=10) == []
        make_version(connection)
        assert [item.id for item in publishing.take_unpublished(connection, at_most=10)] == ids


def test_unpublished_rows_are_taken_once(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 3)
        publishing.mark_unpublished(connection, ids)
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


def test_lost_messages_among_many_inspections_are_found_without_comparing_them_all(
    engine: Engine, recipe_id: int
) -> None:
    """The publishing time of the newest message that a worker received is read once, not for each inspection."""
    with engine.begin() as connection:
        submit(connection, 3)
        connection.execute(text("UPDATE work SET published_at = now() - interval '1 minute'"))
        connection.execute(text("ANALYZE work"))
        parameters = {"priority": "live", "queue_is_empty": False, "lost_after": 5.0, "at_most": 10}
        plan = list(connection.execute(text(f"EXPLAIN {publishing._LOST.text}"), parameters).scalars())
    assert any("InitPlan" in line for line in plan), plan
    assert [line for line in plan if "SubPlan" in line or ("Join Filter" in line and "published_at" in line)] == []


def test_a_message_published_by_a_fast_clock_counts_as_lost_once_the_queue_is_empty(
    engine: Engine, recipe_id: int
) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 2)
        connection.execute(text("UPDATE work SET published_at = now() + interval '1 hour'"))
        assert publishing.take_with_lost_message(connection, priority="live", queue_is_empty=False, at_most=10) == []
        lost = publishing.take_with_lost_message(connection, priority="live", queue_is_empty=True, at_most=10)
    assert {item.id for item in lost} == set(ids)
