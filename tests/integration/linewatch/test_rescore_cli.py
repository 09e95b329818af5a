"""`linewatch rescore` against a running api without workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from linewatch.cli import failures, run
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.part_images import png
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

COMMAND = ["rescore", "--recipe", RECIPE, "--model", "2"]


@pytest.fixture
def api(engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A running api, which commands use; the archive root is the folder of the test."""
    make_versions(engine)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(tmp_path)) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield http


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a command that must succeed and return its JSON output."""
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_started_shown_and_controlled(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--where", "lot=L-1", "--where", "max_age=2d", "--threshold", "0.5", "--window", "22:00-05:00"]
    assert run([*COMMAND, *options, "--time-zone", "Europe/Berlin", "--detach"]) == 0
    run_id = capsys.readouterr().out.strip()
    created = api.get(f"/v1/rescore-runs/{run_id}").json()
    assert (created["threshold"], created["window"], created["time_zone"]) == (0.5, "22:00-05:00", "Europe/Berlin")
    assert (created["source"]["where"]["lot_id"], "since" in created["source"]["where"]) == ("L-1", True)
    assert output_of(capsys, "rescore", "show", "last") == created
    assert output_of(capsys, "rescore", "pause", run_id)["status"] == "paused"
    assert output_of(capsys, "rescore", "resume", "last")["status"] == "queued"
    assert run(["rescore", "list", "--status", "queued"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert (header.split()[:3], row.split()[2:6]) == (["created", "recipe", "version"], [RECIPE, "2", "queued", "0"])
    assert row.split()[-1] == run_id
    assert run(["rescore", "cancel", run_id]) == 0
    assert f"Run {run_id} is cancelled" in capsys.readouterr().err
    assert run(["rescore", "attach", "last"]) == failures.FAILED
    assert f"run {run_id} was cancelled" in capsys.readouterr().err
    assert run(["rescore", "pause", run_id]) == failures.FAILED


def test_all_inspections_folders_and_manifests_can_be_sources(
    api: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "one.png").write_bytes(png(1))
    (tmp_path / "lot.csv").write_text("path\nlot/one.png\n")
    monkeypatch.chdir(tmp_path / "lot")
    assert output_of(capsys, *COMMAND, "--all", "--detach")["source"] == {"where": {}}
    assert output_of(capsys, *COMMAND, "--folder", "../lot", "--detach")["source"]["folder"].endswith(f"{tmp_path}/lot")
    source = output_of(capsys, *COMMAND, "--manifest", "../lot.csv", "--detach")["source"]
    assert source["manifest"].endswith(f"{tmp_path}/lot.csv")
    assert run([*COMMAND, "--folder", "/", "--detach"]) == failures.FAILED
    assert run([*COMMAND, "--folder", "s3://elsewhere/lots", "--detach"]) == failures.FAILED
    assert "s3://elsewhere/lots" in capsys.readouterr().err


def test_following_a_run_prints_its_outcome(
    engine: Engine, api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = make_completed_run(engine, [ResultGroup(None, "ok", "ng", 3), ResultGroup(None, None, "failed", 2)])
    assert run(["rescore", "attach", "last"]) == 0
    output = capsys.readouterr()
    header, row = output.out.splitlines()
    counts = dict(zip(header.split(), row.split(), strict=True))
    assert (counts["completed"], counts["failed"], counts["ok→ng"]) == ("3", "2", "3")
    assert f"linewatch rescore report {run_id}" in output.err
    assert output_of(capsys, "rescore", "attach", str(run_id))["status"] == "completed"
    assert output_of(capsys, "rescore", "activate", "last", "--max-failures", "0.5")["activated"] is True
    assert output_of(capsys, "rescore", "rollback", "last")["activated"] is False


def test_last_does_not_select_a_challenger_run(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    api.put(f"/v1/recipes/{RECIPE}/challenger", json={"model_version": 2, "share": 0.5})
    assert run(["rescore", "show", "last"]) == failures.FAILED
    assert "there is no run yet" in capsys.readouterr().err
    assert run(["rescore", "list"]) == 0
    assert "queued (challenger)" in capsys.readouterr().out


def test_a_run_cancelled_while_followed_is_a_failure(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []
    following = threading.Thread(target=lambda: codes.append(run([*COMMAND, "--all", "--json"])))
    following.start()
    cancel_first(api)
    following.join(30)
    output = capsys.readouterr()
    assert (codes, json.loads(output.out)["status"]) == ([failures.FAILED], "cancelled")


def cancel_first(api: httpx.Client) -> None:
    """Cancel the first run as soon as it exists."""
    deadline = time.monotonic() + 30
    while not (queued := api.get("/v1/rescore-runs", params={"status": "queued"}).json()["items"]):
        assert time.monotonic() < deadline
    assert api.post(f"/v1/rescore-runs/{queued[0]['id']}/cancel").status_code == 200


def test_an_interrupt_detaches_from_the_run(api: httpx.Client) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "linewatch.cli", *COMMAND, "--all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        assert command.stderr is not None
        run_id = command.stderr.readline().split()[1].rstrip(";")
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=30)
    finally:
        command.kill()
        command.wait()
    assert (command.returncode, out) == (failures.INTERRUPTED, "")
    assert err == f"linewatch: run {run_id} continues; `linewatch rescore attach {run_id}` follows it again\n"
    assert api.get(f"/v1/rescore-runs/{run_id}").json()["status"] == "queued"
