"""A gate uses only the reviews and results of its run, and is not met without data."""

from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine

from core.rescoring import gate, runs
from core.rescoring.gate import Gate, RuleOutcome
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions


def judged(engine: Engine, groups: list[ResultGroup], **limits: Any) -> dict[str, RuleOutcome]:
    make_versions(engine)
    run_id = make_completed_run(engine, groups)
    with engine.begin() as connection:
        outcomes = gate.evaluate(connection, runs.get(connection, run_id), Gate(**limits))
    return {outcome.rule: outcome for outcome in outcomes}


def test_every_rule_is_listed_with_its_counts(engine: Engine) -> None:
    by_rule = judged(
        engine,
        [
            ResultGroup("ok", "ok", "ok", 198),
            ResultGroup("ok", "ok", "ng", 1),
            ResultGroup("ok", "ng", "ng", 1),
            ResultGroup("ok", "ok", "failed", 5),
            ResultGroup("ng", "ng", "ok", 2),
            ResultGroup("ng", "ok", "ok", 2),
            ResultGroup("ng", "ng", "ng", 36),
            ResultGroup(None, "ok", "ng", 3),
            ResultGroup(None, None, "ng", 100),
        ],
        max_new_false_rejects=0.005,
        max_missed=0.04,
        max_new_rejects=0.02,
        max_failures=0.01,
        min_reviewed_ok=200,
        min_reviewed_ng=41,
    )
    assert {rule: (outcome.count, outcome.of, outcome.measured, outcome.met) for rule, outcome in by_rule.items()} == {
        "max_new_false_rejects": (1, 200, 0.005, True),  # equal to the limit
        "max_missed": (2, 40, 0.05, False),
        "max_new_rejects": (4, 243, 4 / 243, True),
        "max_failures": (5, 348, 5 / 348, False),
        "min_reviewed_ok": (200, 240, 200, True),
        "min_reviewed_ng": (40, 240, 40, False),
    }
    assert by_rule["max_new_false_rejects"].bound == pytest.approx(0.0235, abs=0.0001)


def test_a_small_sample_does_not_meet_a_gate_with_confidence(engine: Engine) -> None:
    make_versions(engine)
    run_ids = [make_completed_run(engine, [ResultGroup("ok", "ok", "ok", number)]) for number in (597, 598)]
    met = {}
    for confident in (False, True):
        limits = Gate(max_new_false_rejects=0.005, confident=confident)
        with engine.begin() as connection:
            met[confident] = [
                gate.evaluate(connection, runs.get(connection, run_id), limits)[0].met for run_id in run_ids
            ]
    assert met == {False: [True, True], True: [False, True]}


@pytest.mark.parametrize(
    ("rule", "groups"),
    [
        ("max_new_false_rejects", [ResultGroup("ng", "ok", "ok"), ResultGroup("ok", "ok", "failed")]),
        ("max_missed", [ResultGroup("ok", "ok", "ok"), ResultGroup("ng", "ok", "failed")]),
        ("max_new_rejects", [ResultGroup(None, None, "ok"), ResultGroup(None, "ok", "failed")]),
        ("max_failures", []),
    ],
)
def test_a_rule_without_data_is_not_met(engine: Engine, rule: str, groups: list[ResultGroup]) -> None:
    [outcome] = judged(engine, groups, **{rule: 1.0}).values()
    assert (outcome.met, outcome.measured, outcome.of) == (False, None, 0)
    assert outcome.detail is not None


@pytest.mark.parametrize(
    "limits", [{}, {"min_reviewed_ok": 10}, {"confident": True}, {"max_missed": 1.5}, {"max_missed": float("nan")}]
)
def test_a_gate_needs_a_limit(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gate(**limits)
