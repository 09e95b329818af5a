"""Activation and rollback of runs, and challengers, on the command line and with both clients."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from core.settings import Settings
from linewatch import GateNotMet, RescoreRun
from linewatch.cli import failures, run
from linewatch.cli.commands.rescoring.runs import rescore
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.mock_system import CLIENTS
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

RESULT_GROUPS = [ResultGroup("ok", "ok", "ok", 99), ResultGroup("ok", "ok", "ng", 1)]


@pytest.fixture
def url(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a running api; commands use it."""
    make_versions(engine)
    with running_api(settings) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield str(http.base_url)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(rescore, [str(argument) for argument in arguments])


def exit_code(result: Result) -> int:
    """Return the exit code of the command."""
    if not isinstance(result.exception, Exception):
        return result.exit_code
    failure = failures.explain(result.exception)
    assert failure is not None, result.exception
    return failure.exit_code


@pytest.mark.usefixtures("url")
def test_activate_prints_the_gate_and_fails_if_it_is_not_met(engine: Engine) -> None:
    run_id = make_completed_run(engine, RESULT_GROUPS)
    strict = command("activate", run_id, "--max-new-false-rejects", 0.005, "--max-missed", 0.1)
    assert exit_code(strict) == failures.FAILED
    header, *rows = strict.stdout.splitlines()
    assert header.split() == ["rule", "limit", "measured", "count", "of", "95", "%", "bound", "met"]
    assert [row.split()[:5] for row in rows] == [
        ["max_new_false_rejects", "0.500%", "1.000%", "1", "100"],
        ["max_missed", "10.000%", "–", "0", "0"],
    ]
    assert rows[0].split()[-1] == "no"
    assert rows[1].endswith("no: no part with a verdict of the run was reviewed ng")
    as_json = command("activate", run_id, "--max-new-false-rejects", 0.005, "--json")
    result = json.loads(as_json.stdout)
    assert (exit_code(as_json), result["activated"], result["gate"][0]["count"]) == (failures.FAILED, False, 1)
    met = command("activate", run_id, "--max-new-false-rejects", 0.01, "--min-reviewed-ok", 100)
    assert (exit_code(met), [row.split()[-1] for row in met.stdout.splitlines()[1:]]) == (0, ["yes", "yes"])
    assert met.stdout.splitlines()[2].split()[:5] == ["min_reviewed_ok", "100", "100", "100", "100"]
    assert f"Version 2 of recipe {RECIPE} is active now, with the threshold 0.5." in met.stderr
    back = command("rollback", run_id, "--json")
    assert (exit_code(back), json.loads(back.stdout)["model_version"]["version"]) == (0, 1)
    assert exit_code(command("rollback", run_id)) == failures.FAILED


def test_a_gate_without_limits_is_a_usage_error() -> None:
    result = command("activate", "x", "--min-reviewed-ok", 10)
    assert (exit_code(result), result.stdout) == (failures.WRONG_USE, "")
    assert "--max-new-false-rejects" in str(result.exception)


@pytest.mark.usefixtures("url")
def test_a_challenger_is_started_listed_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--recipe", RECIPE]
    assert run(["models", "challenge", *named, "--version", "2", "--share", "0"]) == failures.WRONG_USE
    assert run(["models", "unchallenge", *named]) == failures.FAILED
    assert run(["models", "challenge", *named, "--version", "2", "--share", "0.25", "--json"]) == 0
    challenger = json.loads(capsys.readouterr().out)
    assert (challenger["kind"], challenger["source"]) == ("challenger", {"live": {"share": 0.25}})
    assert run(["models", "list", *named]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "challenges with 0.25 of the images" in rows["2"]
    assert "ready and active" in rows["1"]
    assert "challenges" not in rows["3"]
    assert run(["models", "unchallenge", *named]) == 0
    assert challenger["id"] in capsys.readouterr().err


@pytest.mark.parametrize("kind", CLIENTS)
def test_both_clients_support_all_operations(engine: Engine, url: str, kind: str) -> None:
    make: Callable[..., Any] = CLIENTS[kind]
    run_id = make_completed_run(engine, RESULT_GROUPS, threshold=0.3)
    with make(url) as lw:
        with pytest.raises(GateNotMet) as caught:
            lw.activate_run(run_id, max_new_false_rejects=0.01, confident=True)
        assert (caught.value.code, caught.value.gate[0]["met"]) == ("gate_not_met", False)
        result = lw.activate_run(run_id, max_new_false_rejects=0.01, min_reviewed_ok=100)
        assert (result.activated, result.model_version.version, result.model_version.threshold.threshold) == (
            True,
            2,
            0.3,
        )
        assert (result.run.activation["state"], result.gate[0].measured) == ("active", 0.01)
        assert lw.rollback_run(run_id).model_version.version == 1
        assert lw.challenger(RECIPE) is None
        run = lw.set_challenger(RECIPE, 3, share=1)
        current = lw.challenger(RECIPE)
        assert isinstance(current, RescoreRun)
        assert (current.id, current.final) == (run.id, False)
        [recipe] = lw.recipes()
        assert (recipe.challenger.model_version, recipe.challenger.run_id) == (3, run.id)
        lw.end_challenger(RECIPE)
        assert lw.challenger(RECIPE) is None
