"""A challenger scores a share of the inspections completed after its start, each once, with limited lag."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.errors import Code, Refused
from core.feed import feed
from core.inspection import reviews
from core.models import recipes
from core.rescoring import challengers, runs
from core.rescoring.runs import Run
from tests.fixtures.finished_inspections import RECIPE, finish_inspections
from tests.fixtures.rescore_runs import ResultGroup, add_results, make_versions


@pytest.fixture(autouse=True)
def _versions(engine: Engine) -> None:
    make_versions(engine)


def start(engine: Engine, share: float = 1.0) -> Run:
    with engine.begin() as connection:
        return challengers.create(connection, RECIPE, 2, share=share, actor="test")


def cursor_of(engine: Engine, run: Run) -> dict[str, Any]:
    with engine.begin() as connection:
        cursor: dict[str, Any] = connection.execute(
            text("SELECT cursor FROM rescore_runs WHERE id = :id"), {"id": run.id}
        ).scalar_one()
        return cursor


def take_all(engine: Engine, run: Run, cursor: dict[str, Any], at_most: int = 1000) -> tuple[list[list[UUID]], Any]:
    """Return all current inspections in the portions in which they are taken, and the cursor after them."""
    portions = []
    more = True
    while more:
        with engine.begin() as connection:
            items, cursor, more = challengers.next_inspections(connection, run, cursor, at_most)
        portions.append(items)
    return portions, cursor


def flat(portions: list[list[UUID]]) -> list[UUID]:
    return [inspection_id for portion in portions for inspection_id in portion]


def feed_inspections(engine: Engine, number: int) -> None:
    """Insert many completed inspections as copies of one."""
    [template_id] = finish_inspections(engine, 1)
    with engine.begin() as connection:
        columns = [
            row.attname
            for row in connection.execute(
                text("""
            SELECT attname FROM pg_attribute
            WHERE attrelid = 'inspections'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'id'
        """)
            )
        ]
        names = ", ".join(columns)
        connection.execute(
            text(f"""
                INSERT INTO inspections (id, {names})
                SELECT uuidv7(), {names} FROM inspections, generate_series(1, :number) WHERE id = :id
            """),  # noqa: S608
            {"number": number - 1, "id": template_id},
        )
    with engine.begin() as connection:
        feed.number_entries(connection, at_most=number)


def test_a_challenger_starts_now_and_takes_each_inspection_once_in_order(engine: Engine) -> None:
    finish_inspections(engine, 5)
    run = start(engine)
    assert take_all(engine, run, cursor_of(engine, run)) == ([[]], cursor_of(engine, run))
    ids = finish_inspections(engine, 25)
    portions, cursor = take_all(engine, run, cursor_of(engine, run), at_most=10)
    assert [len(portion) for portion in portions] == [10, 10, 5]
    assert flat(portions) == ids
    more = finish_inspections(engine, 3)
    assert flat(take_all(engine, run, cursor)[0]) == more


def test_a_challenger_takes_only_completed_inspections_of_its_recipe(engine: Engine) -> None:
    run = start(engine)
    mine = finish_inspections(engine, 6)
    with engine.begin() as connection:
        recipes.create(connection, "another", actor="test")
        connection.execute(
            text("""
                UPDATE inspections SET status = 'failed', error_code = 'poison', anomaly_score = NULL, verdict = NULL
                WHERE id = :id
            """),
            {"id": mine[0]},
        )
        connection.execute(
            text(
                "UPDATE feed_unnumbered SET recipe_id = recipes.id FROM recipes "
                "WHERE inspection_id = :id AND name = 'another'"
            ),
            {"id": mine[1]},
        )
        reviews.add(connection, mine[2], verdict="ng", reviewer="a person", reason="looked", actor="test")
    assert flat(take_all(engine, run, cursor_of(engine, run))[0]) == mine[2:]


def test_the_share_is_uniform_and_the_same_after_a_restart(engine: Engine) -> None:
    run = start(engine, share=0.1)
    feed_inspections(engine, 20_000)
    began = cursor_of(engine, run)
    sampled = flat(take_all(engine, run, began)[0])
    assert 1800 <= len(sampled) <= 2200  # 2000 and more than four standard deviations
    assert len(set(sampled)) == len(sampled)
    # The sample does not depend on the start or on the size of the portions.
    portions, cursor = take_all(engine, run, began, at_most=700)
    assert flat(portions) == sampled
    with engine.begin() as connection:
        first, halfway, _ = challengers.next_inspections(connection, run, began, 300)
    assert first + flat(take_all(engine, run, halfway)[0]) == sampled
    assert flat(take_all(engine, run, cursor)[0]) == []
    larger = replace(run, source={"live": {"share": 0.2}})
    assert set(flat(take_all(engine, larger, began)[0])) > set(sampled)
    # Each tenth of the feed has the same share.
    with engine.begin() as connection:
        order = list(
            connection.execute(text("SELECT inspection_id FROM feed WHERE event = 'final' ORDER BY number")).scalars()
        )
    places = {inspection_id: place * 10 // len(order) for place, inspection_id in enumerate(order)}
    tenths = [sum(places[inspection_id] == tenth for inspection_id in sampled) for tenth in range(10)]
    assert all(130 <= number <= 270 for number in tenths), tenths  # 200 and more than five standard deviations


def test_each_read_is_limited_and_a_small_share_still_advances(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challengers, "FEED_ENTRIES_AT_ONCE", 10)
    run = start(engine, share=1e-9)
    finish_inspections(engine, 35)
    portions, cursor = take_all(engine, run, cursor_of(engine, run))
    with engine.begin() as connection:
        assert cursor == {"feed": feed.number_entries(connection).newest}
    assert portions == [[], [], [], []]


def test_entries_that_are_too_old_are_skipped_and_counted(engine: Engine) -> None:
    run = start(engine)
    old = finish_inspections(engine, 7)
    with engine.begin() as connection:
        feed.number_entries(connection)
        connection.execute(text("UPDATE feed SET numbered_at = now() - interval '61 minutes'"))
    new = finish_inspections(engine, 3)
    assert flat(take_all(engine, run, cursor_of(engine, run))[0]) == new
    with engine.begin() as connection:
        assert runs.get(connection, run.id).skipped == len(old)


def test_a_challenger_resumes_at_the_oldest_retained_entry(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challengers, "FEED_ENTRIES_AT_ONCE", 2)
    run = start(engine)
    finish_inspections(engine, 10)
    with engine.begin() as connection:
        feed.number_entries(connection)
        connection.execute(text("UPDATE feed SET numbered_at = now() - interval '40 days'"))
        assert feed.expire(connection, days=30, at_most=100) == 10
    new = finish_inspections(engine, 2)
    portions, _ = take_all(engine, run, cursor_of(engine, run))
    assert (flat(portions), len(portions)) == (new, 1)


def test_a_recipe_has_one_challenger_other_than_its_active_version(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(Refused) as caught:
        challengers.create(connection, RECIPE, 1, share=0.5, actor="test")
    assert caught.value.code is Code.INVALID_TRANSITION
    run = start(engine)
    with pytest.raises(Refused) as caught:
        start(engine)
    assert caught.value.code is Code.CHALLENGER_EXISTS
    with engine.begin() as connection:
        assert {recipe_id: run.id for recipe_id, run in challengers.all_by_recipe_id(connection).items()} == {
            run.recipe_id: run.id
        }


def test_an_ended_challenger_finishes_its_planned_slices(engine: Engine) -> None:
    run = start(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE rescore_runs SET state = 'running', started_at = now(), planned = 3 WHERE id = :id"),
            {"id": run.id},
        )
        ended = challengers.end(connection, RECIPE, actor="test")
        assert (ended.state, ended.total) == ("running", 3)
        add_results(connection, run.id, [ResultGroup(None, "ok", "ok", 2)])
        runs.end_if_done(connection, run.id)
        assert runs.get(connection, run.id).state == "running"
    with engine.begin() as connection:
        add_results(connection, run.id, [ResultGroup(None, "ok", "ok", 1)])
        runs.end_if_done(connection, run.id)
        assert runs.get(connection, run.id).state == "completed"
        assert challengers.find(connection, RECIPE) is None


def test_a_challenger_without_planned_slices_ends_at_once(engine: Engine) -> None:
    start(engine)
    with engine.begin() as connection:
        assert challengers.end(connection, RECIPE, actor="test").state == "completed"
    with engine.begin() as connection, pytest.raises(Refused) as caught:
        challengers.end(connection, RECIPE, actor="test")
    assert caught.value.code is Code.NOT_FOUND
