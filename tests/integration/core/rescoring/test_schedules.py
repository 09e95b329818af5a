"""Schedules make runs at their times: one each, however many dispatchers look, and however long none did."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.errors import Code, Refused
from core.queue import notifications
from core.rescoring import runs, schedules
from core.rescoring.maintenance_windows import parse_time_zone
from core.rescoring.requests import ScheduledRequest
from core.rescoring.schedules import Schedule
from core.settings import Settings
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.rescore_runs import make_versions
from tests.integration.core.queue.test_work import make_recipe
from worker.dispatcher import Dispatcher

EVERYTHING = {"recipe": RECIPE, "source": {"where": {}}}
BERLIN = "Europe/Berlin"


@pytest.fixture(autouse=True)
def _versions(engine: Engine) -> None:
    """Version 1 is active, versions 2 and 3 are ready."""
    make_versions(engine)


def make(engine: Engine, name: str = "nightly", *, due: bool = True, **asked: Any) -> UUID:
    request = ScheduledRequest.model_validate({**EVERYTHING, **asked})
    with engine.begin() as connection:
        made = schedules.create(connection, name, cron="30 22 * * *", time_zone=BERLIN, request=request, actor="test")
    if due:
        pass_time(engine)
    return made.id


def pass_time(engine: Engine) -> None:
    """As if four days had gone by without a dispatcher."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_schedules SET next_at = next_at - interval '4 days'"))


def look(engine: Engine) -> list[UUID]:
    with engine.begin() as connection:
        return schedules.start_due(connection)


def get(engine: Engine, schedule_id: UUID) -> Schedule:
    with engine.begin() as connection:
        return schedules.get(connection, schedule_id)


def made_runs(engine: Engine) -> list[runs.Run]:
    with engine.begin() as connection:
        found, _ = runs.list_page(connection, recipe=None, state=None, before=None, limit=100)
        return found


def test_missed_times_make_one_run_and_the_next_one_comes_at_its_time(engine: Engine) -> None:
    made = make(engine, threshold=0.4)
    [run_id] = look(engine)
    assert look(engine) == []
    [run] = made_runs(engine)
    assert (run.id, run.actor, run.schedule_id, run.model_version) == (run_id, "schedule:nightly", made, 3)
    assert (run.threshold, run.source) == (0.4, {"where": {}})
    now = dt.datetime.now(dt.UTC)
    found = get(engine, made)
    assert found.last is not None
    assert (found.last.run_id, found.last.outcome) == (run_id, "started")
    assert found.next_at is not None
    assert now < found.next_at <= now + dt.timedelta(hours=25)
    local = found.next_at.astimezone(parse_time_zone(BERLIN))
    assert (local.hour, local.minute) == (22, 30)


def test_what_is_not_due_or_disabled_makes_none(engine: Engine) -> None:
    make(engine, due=False)
    assert look(engine) == []
    made = make(engine, "other")
    with engine.begin() as connection:
        changed = schedules.change(connection, made, state="disabled", actor="test")
    pass_time(engine)
    assert changed.next_at is None
    assert [one.schedule_id for one in made_runs(engine) if one.schedule_id == made] == []
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM rescore_schedules WHERE name = 'nightly'"))
    assert look(engine) == []
    with engine.begin() as connection:
        enabled = schedules.change(connection, made, state="enabled", actor="test")
    assert enabled.next_at is not None
    assert enabled.next_at > dt.datetime.now(dt.UTC)
    assert look(engine) == []


def test_dispatchers_that_look_at_once_make_one_run_each(engine: Engine) -> None:
    names = [f"schedule-{number}" for number in range(8)]
    for name in names:
        make(engine, name)
    together = threading.Barrier(6)

    def dispatcher() -> list[UUID]:
        together.wait()
        return look(engine)

    with ThreadPoolExecutor(6) as threads:
        started = [one for found in [threads.submit(dispatcher) for _ in range(6)] for one in found.result()]
    assert len(started) == len(names)
    assert sorted(one.actor for one in made_runs(engine)) == [f"schedule:{name}" for name in names]


def test_each_dispatcher_looks_every_round(engine: Engine, settings: Settings) -> None:
    make(engine)
    dispatchers = [Dispatcher(settings), Dispatcher(settings)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(Dispatcher.round, dispatchers))
    for one in dispatchers:
        one.close()
    with notifications.connect(settings) as queues:
        queues.flushdb()  # what was published is for no other test
    assert len(made_runs(engine)) == 1


def test_none_is_made_while_the_one_before_has_not_ended(engine: Engine) -> None:
    made = make(engine)
    [run_id] = look(engine)
    pass_time(engine)
    assert look(engine) == []
    found = get(engine, made)
    assert found.last is not None
    assert (found.last.run_id, found.last.outcome) == (run_id, f"not started: its run {run_id} is queued")
    assert found.next_at is not None
    assert found.next_at > dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        runs.cancel(connection, run_id, actor="test")
    pass_time(engine)
    [another] = look(engine)
    assert another != run_id


def test_a_run_that_cannot_be_made_says_why_and_holds_up_no_other(engine: Engine) -> None:
    made = make(engine, model_version=2)
    make(engine, "other", model_version=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET state = 'rejected' WHERE version = 2"))
    pass_time(engine)
    [run_id] = look(engine)
    [run] = made_runs(engine)
    assert (run.id, run.actor) == (run_id, "schedule:other")
    found = get(engine, made)
    assert found.last is not None
    assert found.last.run_id is None
    assert found.last.outcome.startswith("not started: Version 2 of recipe")
    assert found.state == "enabled"


def test_without_a_version_it_takes_the_newest_ready_one(engine: Engine) -> None:
    make(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET state = 'rejected' WHERE version = 3"))
    look(engine)
    assert [one.model_version for one in made_runs(engine)] == [2]
    with engine.begin() as connection:
        make_recipe(connection, "bare")
    bare = make(engine, "of-bare", recipe="bare")
    assert look(engine) == []
    last = get(engine, bare).last
    assert last is not None
    assert last.outcome == "not started: Recipe 'bare' has no version that is ready."


def test_a_schedule_whose_zone_is_gone_is_disabled_alone(engine: Engine) -> None:
    made = make(engine)
    make(engine, "other")
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_schedules SET time_zone = 'Gone/Away' WHERE name = 'nightly'"))
    assert len(look(engine)) == 2
    found = get(engine, made)
    assert (found.state, found.next_at) == ("disabled", None)
    assert found.last is not None
    assert "'Gone/Away' is not a time zone" in found.last.outcome


def test_changes_are_audited_and_names_are_taken_once(engine: Engine) -> None:
    made = make(engine, due=False)
    with engine.begin() as connection, pytest.raises(Refused) as taken:
        schedules.create(
            connection,
            "nightly",
            cron="0 * * * *",
            time_zone="UTC",
            request=ScheduledRequest.model_validate(EVERYTHING),
            actor="test",
        )
    assert taken.value.code is Code.SCHEDULE_EXISTS
    with engine.begin() as connection:
        schedules.change(connection, made, cron="0 3 * * *", actor="key:mes")
        schedules.remove(connection, made, actor="key:mes")
        rows = connection.execute(
            text(
                "SELECT action, actor, detail FROM audit_events WHERE subject = 'rescore_schedule:nightly' ORDER BY id"
            )
        ).all()
    assert [one.action.partition(".")[2] for one in rows] == ["created", "changed", "removed"]
    assert (rows[1].actor, rows[1].detail) == ("key:mes", {"cron": "0 3 * * *"})
