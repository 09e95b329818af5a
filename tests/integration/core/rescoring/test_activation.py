"""Activating a run behind its gate, and rolling it back: atomic, once, and audited."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.errors import Code, Refused
from core.models import model_versions, recipes, thresholds
from core.rescoring import activation, challengers, runs
from core.rescoring.activation import ActivationResult
from core.rescoring.gate import Gate
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.rescore_runs import ResultGroup, add_results, make_completed_run, make_versions

GATE = Gate(max_new_false_rejects=0.005)
GOOD = [ResultGroup("ok", "ok", "ok", 200), ResultGroup(None, "ok", "ng", 5)]
BAD = [ResultGroup("ok", "ok", "ok", 98), ResultGroup("ok", "ok", "ng", 2)]


@pytest.fixture(autouse=True)
def _versions(engine: Engine) -> None:
    make_versions(engine)


def activate(engine: Engine, run_id: UUID, gate: Gate = GATE) -> ActivationResult:
    with engine.begin() as connection:
        return activation.activate(connection, run_id, gate, actor="key:quality")


def rollback(engine: Engine, run_id: UUID) -> ActivationResult:
    with engine.begin() as connection:
        return activation.rollback(connection, run_id, actor="key:quality")


def refused(act: Callable[..., Any], *arguments: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        act(*arguments)
    return caught.value


def served(engine: Engine) -> tuple[int | None, dict[str | None, tuple[float, float | None]]]:
    """Return the active version and its thresholds by station."""
    with engine.begin() as connection:
        owner = recipes.get(connection, RECIPE)
        assert owner.active_version_id is not None
        in_force = thresholds.in_force(connection, owner.active_version_id)
    return owner.active_version, {
        threshold.station_id: (threshold.threshold, threshold.review_threshold) for threshold in in_force
    }


def audited(engine: Engine) -> list[tuple[str, str, str]]:
    """Return actor, action and subject of all changes after the registration of the versions."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT actor, action, subject FROM audit_events WHERE actor = 'key:quality' ORDER BY id")
        )
        return [tuple(row) for row in rows]


def set_threshold(engine: Engine, version: int, threshold: float, **more: Any) -> None:
    options = {"review_threshold": None, "station_id": None, "calibration": None, **more}
    with engine.begin() as connection:
        thresholds.append(
            connection, model_versions.get(connection, RECIPE, version), threshold=threshold, **options, actor="someone"
        )


def test_activation_and_rollback_are_one_transaction_each(engine: Engine) -> None:
    run_id = make_completed_run(engine, GOOD)
    result = activate(engine, run_id)
    assert (result.version.version, result.version.active, served(engine)[0]) == (2, True, 2)
    note = result.run.activation
    assert note is not None
    assert {name: note[name] for name in ("state", "by", "version_before", "thresholds_before")} == {
        "state": "active",
        "by": "key:quality",
        "version_before": 1,
        "thresholds_before": [],
    }
    assert note["gate"] == [rule.to_json() for rule in result.gate]
    assert note["gate"][0] | {"bound": None} == {
        "rule": "max_new_false_rejects",
        "limit": 0.005,
        "measured": 0.0,
        "count": 0,
        "of": 200,
        "bound": None,
        "met": True,
        "detail": None,
    }
    back = rollback(engine, run_id)
    assert (back.version.version, served(engine)[0]) == (1, 1)
    assert back.run.activation is not None
    assert (back.run.activation["state"], back.run.activation["rolled_back_by"]) == ("rolled_back", "key:quality")
    assert audited(engine) == [
        ("key:quality", "model.activated", f"recipe:{RECIPE}"),
        ("key:quality", "rescore_run.activated", f"rescore_run:{run_id}"),
        ("key:quality", "model.rolled_back", f"recipe:{RECIPE}"),
        ("key:quality", "rescore_run.rolled_back", f"rescore_run:{run_id}"),
    ]
    assert activate(engine, run_id).version.version == 2  # activated a second time


def test_a_gate_that_is_not_met_changes_nothing(engine: Engine) -> None:
    run_id = make_completed_run(engine, BAD, threshold=0.3)
    before = served(engine)
    refusal = refused(activate, engine, run_id, Gate(max_new_false_rejects=0.005, max_failures=0))
    assert refusal.code is Code.GATE_NOT_MET
    assert "max_new_false_rejects" in refusal.detail
    assert "max_failures" not in refusal.detail
    assert [(rule["rule"], rule["count"], rule["of"], rule["met"]) for rule in refusal.members["gate"]] == [
        ("max_new_false_rejects", 2, 100, False),
        ("max_failures", 0, 100, True),
    ]
    assert (served(engine), audited(engine)) == (before, [])
    with engine.begin() as connection:
        assert runs.get(connection, run_id).activation is None


def test_an_activation_applies_at_every_station(engine: Engine) -> None:
    set_threshold(engine, 2, 0.7, station_id="st-7", review_threshold=0.6)
    set_threshold(engine, 2, 0.3, station_id="st-8", review_threshold=0.2)
    run_id = make_completed_run(engine, GOOD, threshold=0.3, review_threshold=0.2)
    activate(engine, run_id)
    assert served(engine) == (2, {None: (0.3, 0.2), "st-7": (0.3, 0.2), "st-8": (0.3, 0.2)})
    assert [action for _, action, _ in audited(engine)] == [
        "threshold.set",
        "threshold.set",  # st-8 has this threshold already
        "model.activated",
        "rescore_run.activated",
    ]
    rollback(engine, run_id)
    assert served(engine)[0] == 1
    with engine.begin() as connection:
        version = model_versions.get(connection, RECIPE, 2)
        thresholds_by_station = {
            threshold.station_id: threshold.threshold for threshold in thresholds.in_force(connection, version.id)
        }
    assert thresholds_by_station == {None: 0.5, "st-7": 0.7, "st-8": 0.3}


def test_a_threshold_is_activated_and_rolled_back_with_its_calibration(engine: Engine) -> None:
    calibration = {"sample_size": 40}
    set_threshold(engine, 1, 0.4, calibration=calibration)
    run_id = make_completed_run(engine, GOOD, version=1, threshold=0.6)
    activate(engine, run_id)
    assert served(engine) == (1, {None: (0.6, None)})
    rollback(engine, run_id)
    assert served(engine) == (1, {None: (0.4, None)})
    with engine.begin() as connection:
        [limit] = thresholds.in_force(connection, model_versions.get(connection, RECIPE, 1).id)
    assert limit.calibration == calibration
    assert [action for _, action, _ in audited(engine)] == [
        "threshold.set",
        "rescore_run.activated",
        "threshold.set",
        "rescore_run.rolled_back",
    ]


def test_a_run_is_not_activated_if_its_thresholds_have_changed(engine: Engine) -> None:
    run_id = make_completed_run(engine, GOOD)
    set_threshold(engine, 2, 0.9)
    refusal = refused(activate, engine, run_id)
    assert refusal.code is Code.INVALID_TRANSITION
    assert "Create a new run" in refusal.detail
    set_threshold(engine, 2, 0.5)  # the previous threshold
    assert activate(engine, run_id).version.version == 2


def test_the_active_version_and_threshold_are_not_activated_again(engine: Engine) -> None:
    run_id = make_completed_run(engine, GOOD)
    activate(engine, run_id)
    refusal = refused(activate, engine, run_id)
    assert (refusal.code, "is active already" in refusal.detail) == (Code.INVALID_TRANSITION, True)
    assert [action for _, action, _ in audited(engine)] == ["model.activated", "rescore_run.activated"]


@pytest.mark.parametrize("state", ["queued", "running", "paused", "failed", "cancelled"])
def test_only_a_completed_run_is_activated(engine: Engine, state: str) -> None:
    run_id = make_completed_run(engine, GOOD)
    with engine.begin() as connection:
        connection.execute(text("UPDATE rescore_runs SET state = :state"), {"state": state})
    refusal = refused(activate, engine, run_id)
    assert (refusal.code, state in refusal.detail) == (Code.INVALID_TRANSITION, True)


def test_a_rollback_only_undoes_what_the_run_did(engine: Engine) -> None:
    first, second = make_completed_run(engine, GOOD), make_completed_run(engine, GOOD, version=3)
    assert refused(rollback, engine, first).code is Code.INVALID_TRANSITION  # not activated yet
    activate(engine, first)
    activate(engine, second)
    refusal = refused(rollback, engine, first)
    assert (refusal.code, served(engine)[0]) == (Code.INVALID_TRANSITION, 3)
    assert "Another version of recipe" in refusal.detail
    rollback(engine, second)
    assert served(engine)[0] == 2
    rollback(engine, first)
    assert served(engine)[0] == 1
    assert "already" in refused(rollback, engine, first).detail


def test_a_rollback_undoes_no_later_threshold(engine: Engine) -> None:
    first, second = (make_completed_run(engine, GOOD, version=1, threshold=threshold) for threshold in (0.6, 0.7))
    activate(engine, first)
    activate(engine, second)
    assert "A threshold of version 1" in refused(rollback, engine, first).detail
    rollback(engine, second)
    set_threshold(engine, 1, 0.8, station_id="st-9")
    assert "A threshold of version 1" in refused(rollback, engine, first).detail
    set_threshold(engine, 1, 0.6, station_id="st-9")
    rollback(engine, first)
    assert served(engine) == (1, {None: (0.5, None), "st-9": (0.6, None)})


def test_activating_a_running_challenger_ends_it(engine: Engine) -> None:
    with engine.begin() as connection:
        run = challengers.create(connection, RECIPE, 2, share=0.5, actor="test")
    assert refused(activate, engine, run.id).code is Code.INVALID_TRANSITION  # no results yet
    with engine.begin() as connection:
        add_results(connection, run.id, GOOD)
    result = activate(engine, run.id)
    assert (result.version.version, result.run.state) == (2, "completed")
    with engine.begin() as connection:
        assert challengers.find(connection, RECIPE) is None
    assert rollback(engine, run.id).version.version == 1


def at_once(act: Callable[[UUID], ActivationResult], run_ids: list[UUID]) -> list[ActivationResult | Refused]:
    """Run an action on several runs concurrently and return the outcomes."""
    together = Barrier(len(run_ids))

    def run_action(run_id: UUID) -> ActivationResult | Refused:
        together.wait()
        try:
            return act(run_id)
        except Refused as refusal:
            return refusal

    with ThreadPoolExecutor(len(run_ids)) as threads:
        return list(threads.map(run_action, run_ids))


def test_of_concurrent_activations_exactly_one_succeeds(engine: Engine) -> None:
    run_id = make_completed_run(engine, GOOD, threshold=0.3)
    for act, version in ((activate, 2), (rollback, 1)):
        outcomes = at_once(lambda one, act=act: act(engine, one), [run_id] * 6)  # type: ignore[misc]
        assert sum(isinstance(outcome, ActivationResult) for outcome in outcomes) == 1
        assert {outcome.code for outcome in outcomes if isinstance(outcome, Refused)} == {Code.INVALID_TRANSITION}
        assert served(engine)[0] == version
    with engine.begin() as connection:
        entries = connection.execute(text("SELECT count(*) FROM activations WHERE rolled_back_at IS NULL"))
        assert entries.scalar_one() == 1
        version_id = model_versions.get(connection, RECIPE, 2).id
        [limit] = thresholds.in_force(connection, version_id)
        assert limit.threshold == 0.5
        thresholds_set = connection.execute(
            text("SELECT count(*) FROM thresholds WHERE model_version_id = :id"), {"id": version_id}
        )
        assert thresholds_set.scalar_one() == 3  # of the manifest, of the run, and of the rollback


def test_a_threshold_that_is_being_set_is_waited_for(engine: Engine) -> None:
    run_id = make_completed_run(engine, GOOD)
    with ThreadPoolExecutor(1) as threads:
        with engine.begin() as connection:
            version = model_versions.get(connection, RECIPE, 2)
            common: Any = {"review_threshold": None, "station_id": None, "calibration": None, "actor": "someone"}
            thresholds.append(connection, version, threshold=0.9, **common)
            activating = threads.submit(refused, activate, engine, run_id)
            wait_for_a_lock(engine)
        assert "were changed after" in activating.result().detail
    assert served(engine)[0] == 1


def wait_for_a_lock(engine: Engine) -> None:
    """Wait until a connection waits for a row lock."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with engine.begin() as connection:
            waiting = connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
            if waiting.scalar_one():
                return
        time.sleep(0.01)
    raise AssertionError("no connection waits for a lock")


def test_concurrent_activations_of_two_runs_can_be_rolled_back_one_by_one(engine: Engine) -> None:
    run_ids = [make_completed_run(engine, GOOD, version=version) for version in (2, 3)]
    outcomes = at_once(lambda run_id: activate(engine, run_id), run_ids)
    assert all(isinstance(outcome, ActivationResult) for outcome in outcomes)
    newest = served(engine)[0]
    [later] = [run_id for run_id, version in zip(run_ids, (2, 3), strict=True) if version == newest]
    [earlier] = [run_id for run_id in run_ids if run_id != later]
    rollback(engine, later)
    rollback(engine, earlier)
    assert served(engine)[0] == 1
