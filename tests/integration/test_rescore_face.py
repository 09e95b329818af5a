"""Re-scoring runs from Python and from the command line, against an api without workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine, text

from core.rescoring import runs
from core.settings import Settings
from linewatch import Client, Refused
from linewatch.cli import run as command
from tests.conftest import serving
from tests.events import RECIPE, make_recipe

START = ["rescore", "--recipe", RECIPE, "--model", "1"]


@pytest.fixture
def api(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    make_recipe(engine)
    with serving(settings) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield http


def end(engine: Engine, run_id: str, *, failed: bool = False) -> None:
    with engine.begin() as connection:
        if failed:
            assert runs.fail(connection, UUID(run_id), "the folder is gone")
            return
        connection.execute(
            text(
                "UPDATE rescore_runs SET state = 'completed', total = 3, completed = 3, ok = 1, ng = 2, ok_to_ng = 2, "
                "finished_at = now() WHERE id = :id"
            ),
            {"id": run_id},
        )


def started(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command([*START, "--all", "--detach", *arguments]) == 0
    return capsys.readouterr().out.strip()


def test_the_client_does_the_same(api: httpx.Client) -> None:
    with Client(str(api.base_url)) as lw:
        run = lw.rescore(RECIPE, 1, where={}, idempotency_key="night-3")
        assert lw.rescore(RECIPE, 1, where={}, idempotency_key="night-3").id == run.id
        assert [one.id for one in lw.rescore_runs(recipe=RECIPE)] == [run.id]
        assert [lw.pause_run(run.id).status for _ in range(2)] == ["paused", "paused"]
        assert [lw.resume_run(run.id).status for _ in range(2)] == ["queued", "queued"]
        assert [lw.cancel_run(run.id).status for _ in range(2)] == ["cancelled", "cancelled"]
        with pytest.raises(Refused, match="invalid_transition"):
            lw.pause_run(run.id)
        assert [one.status for one in lw.follow_rescore_run(run.id)] == ["cancelled"]


def test_detached_then_attached_to(api: httpx.Client, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = started(capsys)
    assert UUID(run_id)
    later = threading.Timer(0.5, end, (engine, run_id))
    later.start()
    assert command(["rescore", "attach", "last"]) == 0
    later.join()
    told = capsys.readouterr()
    assert told.out == "3 pictures: 1 ok, 2 ng, 0 review, 0 failed; 2 ok→ng, 0 ng→ok\n"
    assert f"linewatch rescore report {run_id}" in told.err


def test_a_run_that_does_not_complete_is_exit_code_1(
    api: httpx.Client, engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, cancelled = started(capsys), started(capsys)
    end(engine, failed, failed=True)
    assert command(["rescore", "cancel", cancelled]) == 0
    assert command(["rescore", "attach", failed, "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["reason"] == "the folder is gone"
    assert f"linewatch: run {failed} failed: the folder is gone" in told.err
    assert command(["rescore", "attach", cancelled]) == 1
    assert f"linewatch: run {cancelled} was cancelled\n" in capsys.readouterr().err


def test_verbs_answer_json_alone(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads(started(capsys, "--json", "--threshold", "0.4"))
    assert (run["threshold"], run["source"]) == (0.4, {"where": {}})
    for verb, state in (("show", "queued"), ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert command(["rescore", verb, run["id"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == state
    assert command(["rescore", "list", "--json"]) == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == [run["id"]]
    assert command(["rescore", "pause", run["id"]]) == 1
    assert "invalid_transition" in capsys.readouterr().err


def test_an_interrupt_leaves_the_run_to_itself(api: httpx.Client) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "linewatch.cli", *START, "--where", "lot=L-204"],
        env={**os.environ}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith("Run ")
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        told = process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert told.count("\n") == 1
    assert "goes on" in told
    assert "linewatch rescore attach last" in told
    [run] = api.get("/v1/rescore-runs").json()["items"]
    assert (run["status"], run["source"]) == ("queued", {"where": {"lot_id": "L-204"}})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rescore"], "--recipe NAME and --model VERSION"),
        (START, "name one source"),
        ([*START, "--all", "--where", "lot=L-204"], "name one source"),
        ([*START, "--where", "colour=red"], "effective_verdict"),
        ([*START, "--all", "--review-threshold", "0.3"], "review_threshold"),
        (["rescore", "report", "last", "--format", "html"], "--out report.html"),
    ],
)
def test_wrong_use_is_exit_code_2(
    api: httpx.Client, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert command(arguments) == 2
    told = capsys.readouterr()
    assert (told.out, said in told.err) == ("", True), told.err
