"""`drift.detected` is sent once for each episode of drift, whatever is restarted in between."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.drift import episodes, report
from core.models import recipes
from core.settings import Settings
from tests.fixtures.queued_work import make_recipe
from tests.fixtures.scored_days import add_version, dispatch, good_scores, insert_scores
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import running_receiver
from tests.fixtures.webhook_sending import deliveries_of, register, sending


@pytest.fixture
def version_id(engine: Engine) -> int:
    """A version of `ring` with held-out scores."""
    with engine.begin() as connection:
        make_recipe(connection)
    return add_version(engine, "ring", held_out_scores=good_scores(300, seed=1))


@pytest.fixture
def endpoint_id(engine: Engine) -> UUID:
    return register(engine, "http://127.0.0.1:9/", events=["drift.detected"])


def clear_counts(engine: Engine) -> None:
    """Forget what was counted, as if a new day began."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM drift_days"))
        connection.execute(text("DELETE FROM drift_histograms"))


def add_scores(engine: Engine, settings: Settings, version_id: int, factor: float) -> None:
    """Let today's parts have these scores instead of the earlier ones, and judge them."""
    clear_counts(engine)
    insert_scores(engine, version_id, good_scores(200, seed=2, factor=factor))
    dispatch(settings)


def listed(engine: Engine) -> list[tuple[int, bool]]:
    """The model version of each episode, oldest first, and whether it has ended."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT summary ->> 'model_version' AS version, ended_at FROM drift_episodes ORDER BY id")
        )
        return [(int(row.version), row.ended_at is not None) for row in rows]


def test_an_endpoint_receives_the_summary_once(engine: Engine, settings: Settings, version_id: int) -> None:
    with running_receiver() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, events=["drift.detected"], recipes=["ring"])
        register(engine, url, events=["drift.detected"], recipes=["another"])
        insert_scores(engine, version_id, good_scores(200, seed=2, factor=1.5))
        for _ in range(3):  # each is a restarted dispatcher
            dispatch(settings)
        [request] = receiver.wait()
        eventually(lambda: [delivery.state for delivery in deliveries_of(engine, endpoint_id)], ["delivered"])
        assert len(receiver.requests) == 1
    event = request.verified()
    data: dict[str, Any] = event["data"]
    assert event["type"] == "drift.detected"
    assert (data["recipe"], data["model_version"], data["light"], data["parts"]) == ("ring", 1, "drift", 200)
    assert data["psi"] > 0.25
    assert data["reasons"][0].startswith("The scores have moved")
    assert (data["station_id"], data["ended_at"]) == (None, None)
    with engine.begin() as connection:
        summary = report.summarise(connection, recipes.get(connection, "ring"))
    assert data.items() >= summary.model_dump(mode="json").items()


def test_another_episode_begins_after_the_light_was_none(
    engine: Engine, settings: Settings, version_id: int, endpoint_id: UUID
) -> None:
    for factor, expected in (
        (1.5, [(1, False)]),
        (1.6, [(1, False)]),
        (1.0, [(1, True)]),
        (1.5, [(1, True), (1, False)]),
    ):
        add_scores(engine, settings, version_id, factor)
        assert listed(engine) == expected, factor
    assert len(deliveries_of(engine, endpoint_id)) == 2


def test_a_light_that_wavers_between_watch_and_drift_is_one_episode(
    engine: Engine, settings: Settings, version_id: int, endpoint_id: UUID
) -> None:
    for light in ("drift", "watch", "drift"):
        with engine.begin() as connection:
            recipe = recipes.get(connection, "ring")
            summary = report.summarise(connection, recipe).model_copy(update={"light": light})
            episodes.update(connection, recipe, summary)
    assert listed(engine) == [(1, False)]
    assert len(deliveries_of(engine, endpoint_id)) == 1


def test_another_active_version_ends_the_episode(
    engine: Engine, settings: Settings, version_id: int, endpoint_id: UUID
) -> None:
    add_scores(engine, settings, version_id, 1.5)
    second = add_version(engine, "ring", held_out_scores=good_scores(300, seed=1, factor=1.5))
    insert_scores(engine, second, good_scores(200, seed=3, factor=1.5))
    dispatch(settings)
    assert listed(engine) == [(1, True)]
    add_scores(engine, settings, second, 1.0)
    assert listed(engine) == [(1, True), (2, False)]


def test_recipes_without_recent_parts_are_not_judged(engine: Engine, settings: Settings, version_id: int) -> None:
    insert_scores(engine, version_id, good_scores(200, seed=2, factor=1.5), days_ago=3)
    dispatch(settings)
    assert listed(engine) == []
