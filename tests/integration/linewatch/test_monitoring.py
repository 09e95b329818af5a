"""The client reads the drift of a recipe and the state of the system."""

import datetime as dt
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from core.settings import Settings
from linewatch import Client
from tests.fixtures.api_process import running_api
from tests.fixtures.queued_work import make_recipe
from tests.fixtures.scored_days import add_version, dispatch, good_scores, insert_scores, moment_of


@pytest.fixture
def lw(settings: Settings) -> Iterator[Client]:
    with running_api(settings) as http, Client(str(http.base_url)) as client:
        yield client


def test_drift_has_a_light_days_and_episodes(lw: Client, engine: Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        make_recipe(connection)
    version_id = add_version(engine, "ring", held_out_scores=good_scores(300, seed=1))
    insert_scores(engine, version_id, good_scores(100, seed=2), days_ago=1, station_id="a")
    insert_scores(engine, version_id, good_scores(100, seed=2, factor=1.5))
    dispatch(settings)
    drift = lw.drift("ring")
    assert (drift.summary.light, drift.summary.day) == ("drift", moment_of(0).date())
    assert [(day.day, day.parts, day.light) for day in drift.days] == [
        (moment_of(1).date(), 100, "none"),
        (moment_of(0).date(), 100, "drift"),
    ]
    assert drift.days[1].document["score_drift"]["psi"] == drift.summary.psi
    [episode] = drift.episodes
    assert (episode.light, episode.ended_at) == ("drift", None)
    [day] = lw.drift("ring", since=moment_of(1), until=moment_of(1) + dt.timedelta(hours=1), station_id="a").days
    assert day.verdicts == {"ok": 100, "ng": 0, "review": 0}


def test_the_system_has_a_health_queues_and_workers(lw: Client) -> None:
    system = lw.system()
    assert system.health.status == "down"
    assert [queue.name for queue in system.queues] == ["sync", "live", "bulk", "io", "training"]
    assert system.workers == []
