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
from tests.fixtures.queued_work import make_recipe
from tests.fixtures.rescore_runs import make_versions
from worker.dispatcher import Dispatcher

EVERYTHING = {"recipe": RECIPE, "source": {"where": {}}}
BERLIN = "Europe/Berlin"


@pytest.fixture(autouse=True)
def _versions(engine: Engine) -> None:
    """Version 1 is active, versions 2 and 3 are ready."""
    make_versions(engine)


def create_schedule(engine: Engine, name: str = "nightly", *, due: bool = True, **options: Any) -> UUID:
    request = ScheduledRequest.model_validate({**EVERYTHING, **options})
    with engine.begin() as connection:
        schedule = schedules.create(
            connection, name, cron="30 22 * * *", time_zone=BERLIN, request=request, actor="test"
        )
    if due:
        pass_time(engine)
    return schedule.id


def pass_time(engine: Engine) -> None:
    """As if four days had gone by without a dispatcher."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_schedules SET next_at = next_at - interval '4 days'"))


def start_due(engine: Engine) -> list[UUID]:
    with engine.begin() as connection:
        return schedules.start_due(connection)


def get(engine: Engine, schedule_id: UUID) -> Schedule:
    with engine.begin() as connection:
        return schedules.get(connection, schedule_id)


def all_runs(engine: Engine) -> list[runs.Run]:
    with engine.begin() as connection:
        page, _ = runs.list_page(connection, recipe=None, state=None, before=None, limit=100)
        return page


def test_missed_times_create_one_run_and_the_next_time_is_kept(engine: Engine) -> None:
    schedule_id = create_schedule(engine, threshold=0.4)
    [run_id] = start_due(engine)
    assert start_due(engine) == []
    [run] = all_runs(engine)
    assert (run.id, run.actor, run.schedule_id, run.model_version) == (run_id, "schedule:nightly", schedule_id, 3)
    assert (run.threshold, run.source) == (0.4, {"where": {}})
    now = dt.datetime.now(dt.UTC)
    schedule = get(engine, schedule_id)
    assert schedule.last is not None
    assert (schedule.last.run_id, schedule.last.outcome) == (run_id, "started")
    assert schedule.next_at is not None
    assert now < schedule.next_at <= now + dt.timedelta(hours=25)
    local = schedule.next_at.astimezone(parse_time_zone(BERLIN))
    assert (local.hour, local.minute) == (22, 30)


def test_schedules_that_are_not_due_or_disabled_create_no_run(engine: Engine) -> None:
    create_schedule(engine, due=False)
    assert start_due(engine) == []
    other_id = create_schedule(engine, "other")
    with engine.begin() as connection:
        changed = schedules.change(connection, other_id, state="disabled", actor="test")
    pass_time(engine)
    assert changed.next_at is None
    assert [run.schedule_id for run in all_runs(engine) if run.schedule_id == other_id] == []
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM rescore_schedules WHERE name = 'nightly'"))
    assert start_due(engine) == []
    with engine.begin() as connection:
        enabled = schedules.change(connection, other_id, state="enabled", actor="test")
    assert enabled.next_at is not None
    assert enabled.next_at > dt.datetime.now(dt.UTC)
    assert start_due(engine) == []


def test_concurrent_dispatchers_create_one_run_per_schedule(engine: Engine) -> None:
    names = [f"schedule-{number}" for number in range(8)]
    for name in names:
        create_schedule(engine, name)
    together = threading.Barrier(6)

    def dispatcher() -> list[UUID]:
        together.wait()
        return start_due(engine)

    with ThreadPoolExecutor(6) as threads:
        started = [run_id for found in [threads.submit(dispatcher) for _ in range(6)] for run_id in found.result()]
    assert len(started) == len(names)
    assert sorted(run.actor for run in all_runs(engine)) == [f"schedule:{name}" for name in names]


def test_each_dispatcher_checks_schedules_every_round(engine: Engine, settings: Settings) -> None:
    create_schedule(engine)
    dispatchers = [Dispatcher(settings), Dispatcher(settings)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(Dispatcher.round, dispatchers))
    for dispatcher in dispatchers:
        dispatcher.close()
    with notifications.connect(settings) as queues:
        queues.flushdb()  # what was published is for no other test
    assert len(all_runs(engine)) == 1


def test_no_run_is_created_while_the_previous_one_is_running(engine: Engine) -> None:
    schedule_id = create_schedule(engine)
    [run_id] = start_due(engine)
    pass_time(engine)
    assert start_due(engine) == []
    schedule = get(engine, schedule_id)
    assert schedule.last is not None
    assert (schedule.last.run_id, schedule.last.outcome) == (run_id, f"not started: its run {run_id} is queued")
    assert schedule.next_at is not None
    assert schedule.next_at > dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        runs.cancel(connection, run_id, actor="test")
    pass_time(engine)
    [next_run_id] = start_due(engine)
    assert next_run_id != run_id


def test_a_schedule_that_fails_records_the_reason_and_delays_no_other(engine: Engine) -> None:
    schedule_id = create_schedule(engine, model_version=2)
    create_schedule(engine, "other", model_version=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET state = 'rejected' WHERE version = 2"))
    pass_time(engine)
    [run_id] = start_due(engine)
    [run] = all_runs(engine)
    assert (run.id, run.actor) == (run_id, "schedule:other")
    schedule = get(engine, schedule_id)
    assert schedule.last is not None
    assert schedule.last.run_id is None
    assert schedule.last.outcome.startswith("not started: Version 2 of recipe")
    assert schedule.state == "enabled"


def test_without_a_version_a_schedule_uses_the_newest_ready_one(engine: Engine) -> None:
    create_schedule(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE model_versions SET state = 'rejected' WHERE version = 3"))
    start_due(engine)
    assert [run.model_version for run in all_runs(engine)] == [2]
    with engine.begin() as connection:
        make_recipe(connection, "bare")
    bare = create_schedule(engine, "of-bare", recipe="bare")
    assert start_due(engine) == []
    last = get(engine, bare).last
    assert last is not None
    assert last.outcome == "not started: Recipe 'bare' has no ready model version."


def test_a_schedule_with_an_unknown_time_zone_is_disabled(engine: Engine) -> None:
    schedule_id = create_schedule(engine)
    create_schedule(engine, "other")
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_schedules SET time_zone = 'Gone/Away' WHERE name = 'nightly'"))
    assert len(start_due(engine)) == 2
    schedule = get(engine, schedule_id)
    assert (schedule.state, schedule.next_at) == ("disabled", None)
    assert schedule.last is not None
    assert "'Gone/Away' is not a time zone" in schedule.last.outcome


def test_changes_are_audited_and_names_are_unique(engine: Engine) -> None:
    schedule_id = create_schedule(engine, due=False)
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
        schedules.change(connection, schedule_id, cron="0 3 * * *", actor="key:mes")
        schedules.remove(connection, schedule_id, actor="key:mes")
        rows = connection.execute(
            text(
                "SELECT action, actor, detail FROM audit_events WHERE subject = 'rescore_schedule:nightly' ORDER BY id"
            )
        ).all()
    assert [row.action.partition(".")[2] for row in rows] == ["created", "changed", "removed"]
    assert (rows[1].actor, rows[1].detail) == ("key:mes", {"cron": "0 3 * * *"})
